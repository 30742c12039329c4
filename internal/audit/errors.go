package audit

import (
	"context"
	"errors"
	"fmt"

	"immuaudit/evidence"
	"immuaudit/proof"
)

var (
	errWalkPosition = errors.New("the stored walk does not stand where the record says")
	errSlowDisk     = fmt.Errorf("the state was not written within %s; look into the system log for errors of the disk", alarmWithin)
	errTooMany      = fmt.Errorf("more than %d ledgers of one server", maxLedgers)
)

// StateError is a record of the auditor's own state that does not hold
// together. It is never a reason to trust anew.
type StateError struct {
	Name evidence.Name
	Err  error
}

func (e *StateError) Error() string {
	return fmt.Sprintf("reading what is remembered of %s: %v; restore the state directory from a backup, or move it away and pin or import the trusted state", e.Name, e.Err)
}

func (e *StateError) Unwrap() error { return e.Err }

// isLogin reports whether the login itself was refused, rather than a call
// made with it.
func isLogin(err error) bool {
	var l interface{ LoginRefused() bool }
	return errors.As(err, &l) && l.LoginRefused()
}

// doubt is why a round reached no verdict.
type doubt struct {
	reason evidence.Reason
	detail string
}

func (d *doubt) Error() string { return string(d.reason) + ": " + d.detail }

func doubtf(reason evidence.Reason, format string, args ...any) *doubt {
	return &doubt{reason, fmt.Sprintf(format, args...)}
}

// doubtOf classifies an error that is not a mismatch. A transport or decoding
// trouble never proves tampering.
func doubtOf(err error) *doubt {
	var d *doubt
	var fault Fault
	var malformed *proof.Malformed
	var unproven *proof.Unproven
	switch {
	case errors.As(err, &d):
		return d
	case errors.As(err, &unproven):
		if unproven.Need == proof.NeedRoot {
			return &doubt{evidence.TreeLag, err.Error()}
		}
		return &doubt{evidence.Unproven, err.Error()}
	case errors.As(err, &malformed):
		return &doubt{evidence.Malformed, err.Error()}
	case errors.As(err, &fault):
		reason := evidence.Reason(fault.Reason())
		if !reason.Known() {
			reason = evidence.Refused
		}
		return &doubt{reason, err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &doubt{evidence.Timeout, "the round took longer than " + roundTimeout.String()}
	case errors.Is(err, context.Canceled):
		return &doubt{evidence.Interrupted, "the auditor was stopped in mid-round"}
	default:
		return &doubt{evidence.Refused, err.Error()}
	}
}
