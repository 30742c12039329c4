package cli

import (
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/config"
)

// A sink that cannot be made here and now keeps nobody from deciding, and is
// told of the decision all the same.
func TestRulesWithoutSinks(t *testing.T) {
	t.Parallel()
	c := &config.Config{Sinks: []config.Sink{
		{Name: "authorities", Type: "alertmanager", URL: "https://alerts.example.org", CAFile: "/nowhere.pem"},
		{Name: "program", Type: "script", Command: "/nowhere"},
		{Name: "alive", Type: heartbeatSink, URL: "https://beat.example.org", CAFile: "/nowhere.pem"},
	}}
	if _, _, err := sinksOf(c); err == nil {
		t.Error("a sink without its files was made")
	}
	d, err := decider(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	rules := d.Sinks("a server")
	if len(rules) != 2 || rules[0].Name != "authorities" || rules[1].Name != "program" {
		t.Fatalf("%+v", rules)
	}
	for _, r := range rules {
		if want, _ := r.Wants(evidence.Event{Type: evidence.EventTampered}); !want {
			t.Errorf("%s is not told", r.Name)
		}
	}
	c.Sinks[1].Name = "authorities"
	if _, err := decider(c, nil); err == nil {
		t.Error("two sinks have one name")
	}
}

// Sinks are made under their own names, however they are mixed.
func TestSinksKeepTheirOrder(t *testing.T) {
	t.Parallel()
	c := &config.Config{Sinks: []config.Sink{
		{Name: "first", Type: "webhook", URL: "https://a.example.org"},
		{Name: "alive", Type: heartbeatSink, URL: "https://b.example.org"},
		{Name: "last", Type: "alertmanager", URL: "https://c.example.org"},
	}}
	c.Audit.NotificationURL, c.Audit.NotificationOn = "https://d.example.org", alert.OnAlways
	sinks, hearts, err := sinksOf(c)
	if err != nil || len(sinks) != 3 || len(hearts) != 1 || hearts[0].Name() != "alive" {
		t.Fatal(len(sinks), len(hearts), err)
	}
	for i, name := range []string{webhookSink, "first", "last"} {
		if sinks[i].Name() != name || sinks[i].Sink.Name() != name {
			t.Errorf("sink %d is %s, and says %s", i, sinks[i].Name(), sinks[i].Sink.Name())
		}
	}
}
