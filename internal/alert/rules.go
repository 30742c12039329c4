package alert

import "immuaudit/evidence"

// The values of --audit-notification-on.
const (
	OnTamper = "tamper" // the default, as the original documents it
	OnAlways = "always" // after every comparison, as the original does it
)

// Rules says which events go to a sink, and whether a newer one replaces an
// older one that still waits.
//
// With "tamper" only the opening of an incident is told. With "always" so is
// every comparison, of which only the newest of a ledger waits: a receiver that
// was away for an hour wants to know how things stand, not 3,600 times that
// they stood well. What is about an incident is never replaced. Any other word
// counts as "tamper": too many notifications cannot follow from a mistake, and
// none that matters is lost. An empty sink wants nothing.
func Rules(notificationOn, sink string) func(evidence.Event) (want, coalesce bool) {
	always := notificationOn == OnAlways
	return func(e evidence.Event) (want, coalesce bool) {
		switch {
		case sink == "":
			return false, false
		case e.Type == evidence.EventTampered:
			return true, false
		case e.Type == evidence.EventComparison:
			return always, always
		default:
			return false, false
		}
	}
}
