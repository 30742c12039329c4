package config

// Servers is one complete Config for each server that is audited: c itself, if it describes a single one.
func (c *Config) Servers() []*Config { return []*Config{c} }

// Fleet reports whether the file names its servers in tables [[server]].
func (c *Config) Fleet() bool { return false }
