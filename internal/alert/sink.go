// Package alert tells the world outside what the auditor found.
//
// What is to be told was put into the durable outbox in the same transaction as
// the finding itself. The Dispatcher takes it from there to the sinks, at least
// once: a delivery leaves the outbox only after its receiver accepted it, and
// is repeated only if the auditor was killed between the two, or if the
// receiver's answer was lost. Every try carries the same idempotency key.
package alert

import (
	"context"
	"fmt"
	"time"

	"immuaudit/evidence"
)

// Outbox is where deliveries wait, on disk.
//
// An id stands for one event for ever: a newer delivery that takes the place of
// an older one has an id of its own, so that what replaced a delivery under way
// is not taken for delivered. Delivered and Retry on an id that waits no longer
// are no errors.
type Outbox interface {
	// Due lists the deliveries whose next try is not after now, at most limit.
	// The dispatcher also asks for moments that are yet to come; each delivery
	// it tries, it was given since the last answer about it.
	Due(ctx context.Context, now time.Time, limit int) ([]evidence.Pending, error)
	// Delivered removes deliveries, all or none.
	Delivered(ctx context.Context, ids ...int64) error
	// Retry counts a failed try of deliveries and says when to make the next one.
	Retry(ctx context.Context, next time.Time, lastErr string, ids ...int64) error
}

// Watched is an outbox that others write to as well.
type Watched interface {
	// Generation is a number that changes when somebody else wrote.
	Generation(ctx context.Context) (uint64, error)
}

// Sink is where an event can be sent. Send returns nil only if the receiver
// accepted the event; it returns soon after its context ended. It is called by
// several goroutines at once. Its errors hold no credentials.
type Sink interface {
	Name() string
	Send(ctx context.Context, e evidence.Event) error
}

// Batch is a Sink that takes many events at once, so that a thousand incidents
// are not a thousand mails. What goes out together was accepted, or failed,
// together; the same events make the same message under the same key.
type Batch interface {
	Sink
	SendAll(ctx context.Context, events []evidence.Event) error
	// Most is how many go out together.
	Most() int
	// Patience is how long the first of a burst waits for company.
	Patience() time.Duration
}

// PartlyError says that a message was accepted, but not for everybody it was
// meant for. It is not sent again: those who have it would have it twice.
type PartlyError struct{ Missed string }

func (e *PartlyError) Error() string { return "accepted, but not for " + e.Missed }

// Refusal is an answer that is no acceptance.
type Refusal struct {
	Status int    // the HTTP status code
	Quote  string // how the answer began, without credentials
	final  bool   // in another protocol than HTTP: it is about the content
}

func (r *Refusal) Error() string {
	if r.Quote == "" {
		return fmt.Sprintf("the receiver answered %d", r.Status)
	}
	return fmt.Sprintf("the receiver answered %d: %q", r.Status, r.Quote)
}

// Permanent reports whether the receiver found fault with what it got, rather
// than with its own condition. Operators repair receivers, so that is no reason
// to stop trying, only to try seldom.
func (r *Refusal) Permanent() bool {
	switch {
	case r.final:
		return true
	case r.Status == 408 || r.Status == 425 || r.Status == 429:
		return false // they ask to come back
	default:
		return r.Status >= 400 && r.Status < 500
	}
}
