package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"immuaudit/evidence"
)

// TestNothingIsLeftOut fills every field of every record, those that do not
// exist yet included.
func TestNothingIsLeftOut(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var trust evidence.Trust
	var incident evidence.Incident
	var event evidence.Event
	for i, record := range []any{&trust, &incident, &event} {
		populate(t, reflect.ValueOf(record).Elem(), 10*i)
	}
	trust.Version, trust.Baseline.Origin = 0, evidence.OriginAccepted
	trust.Baseline.State, trust.Proven.State = stateAt(5), stateAt(50)
	trust.Walked, trust.Verified = 9, 8
	incident.ID, incident.Version, incident.Kind, incident.Status = "i-1", 0, evidence.Tree, evidence.Open
	event.Verdict = evidence.Consistent
	apply(t, s, evidence.Change{Trust: &trust, Incidents: []evidence.Incident{incident}, Events: []evidence.Event{event}})
	trust.Version, incident.Version, event.Sequence = 1, 1, 2
	all, err := s.Load(t.Context())
	if err != nil || !reflect.DeepEqual(all.Trust, []evidence.Trust{trust}) || !reflect.DeepEqual(all.Open, []evidence.Incident{incident}) {
		t.Errorf("got  %+v\nwant %+v\n     %+v, %v", all, trust, incident, err)
	}
	events, err := s.Events(t.Context(), time.Time{}, 1)
	if err != nil || !reflect.DeepEqual(events, []evidence.Event{event}) {
		t.Errorf("got  %+v\nwant %+v, %v", events, event, err)
	}
}

// populate gives every field of a record a value other than its zero.
func populate(t *testing.T, v reflect.Value, n int) {
	t.Helper()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(noon.Add(time.Duration(n) * time.Hour)))
		return
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			populate(t, v.Field(i), n+i)
		}
		return
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		populate(t, v.Elem(), n+1)
		return
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			populate(t, v.Index(i), n+i)
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(1 + n%200))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(1 + n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(1 + n))
	default:
		t.Fatalf("a field of type %s is not filled", v.Type())
	}
}

// What is out is the newest stale event of a name that nothing recovered from,
// of the server as of a ledger.
func TestOutagesAreLoaded(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	one, other, server := ledger("prod", "one"), ledger("prod", "other"), ledger("prod", "")
	apply(t, s, evidence.Change{Events: []evidence.Event{
		eventOf(one, evidence.EventStale, "1"), eventOf(other, evidence.EventStale, "2"), eventOf(server, evidence.EventStale, "3"),
		eventOf(one, evidence.EventRecovered, "4"), eventOf(other, evidence.EventFirstContact, "5"), eventOf(server, evidence.EventStale, "6"),
	}})
	r, err := s.Load(t.Context())
	if err != nil || len(r.Out) != 2 || r.Out[0].ID != "2" || r.Out[1].ID != "6" || r.Out[0].Name != other {
		t.Fatalf("%+v, %v", r, err)
	}
}
