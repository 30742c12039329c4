package service

import "errors"

// errOther: on Linux no other service manager than systemd is known. The
// library that knows those of other systems is not even linked in.
var errOther = errors.New("not for this system")

func (d Definition) install() ([]string, bool, error)       { return nil, false, errOther }
func (d Definition) uninstall() ([]string, bool, error)     { return nil, false, errOther }
func (d Definition) control(string) ([]string, bool, error) { return nil, false, errOther }
func (d Definition) running() (bool, error)                 { return false, errOther }
