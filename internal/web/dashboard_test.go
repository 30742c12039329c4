package web

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
)

const (
	rulesFile     = "../../deploy/prometheus/immuaudit.rules.yml"
	dashboardFile = "../../deploy/grafana/immuaudit.json"
	operations    = "../../docs/operations.md"
)

func text(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// scraped returns the names of all metrics of an auditor that has everything
// to show, each with the names of its labels and those that every scrape adds.
func scraped(t *testing.T) map[string]map[string]bool {
	t.Helper()
	now := time.Now()
	status := healthy()
	status.Ledgers = append(status.Ledgers, ledgerAt("bad", evidence.Tampered, now))
	s := start(t, Options{
		Statuses: showing(status),
		Queues:   func() []evidence.Queue { return []evidence.Queue{{Sink: "webhook", LastOK: now}} },
		Reloads:  func() (time.Time, bool) { return now, true },
		Version:  VersionInfo{Version: "1.2.3"},
	})
	s.ObserveRound(evidence.Report{Server: "prod", DurationMS: 3})

	series := regexp.MustCompile(`(?m)^([a-z_][a-z0-9_]*)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
	metrics := map[string]map[string]bool{"up": {"job": true, "instance": true}}
	for _, m := range series.FindAllStringSubmatch(get(t, s, "/metrics").body, -1) {
		labels := map[string]bool{"job": true, "instance": true}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = true
		}
		metrics[m[1]] = labels
	}
	return metrics
}

// metricName is what looks like one of ours or of the program's.
var metricName = regexp.MustCompile(`\b(?:immuaudit|immuclient_audit|process|go)_[a-z0-9_]*[a-z0-9]\b`)

// selector is a metric with matchers, matcher one of these.
var (
	selector = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
)

// checkQuery fails the test for metrics and labels that no scrape shows.
func checkQuery(t *testing.T, metrics map[string]map[string]bool, where, query string) {
	t.Helper()
	names := metricName.FindAllString(query, -1)
	if len(names) == 0 && !strings.HasPrefix(query, "up{") {
		t.Errorf("%s names no metric: %s", where, query)
	}
	for _, name := range names {
		if metrics[name] == nil {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !metrics[s[1]][m[1]] {
				t.Errorf("%s: %s has no label %s", where, s[1], m[1])
			}
		}
	}
}

// board is what of a dashboard's JSON these tests look at.
type board struct {
	ID            *int `json:"id"`
	SchemaVersion int  `json:"schemaVersion"`
	Panels        []struct {
		ID          *int `json:"id"`
		Type, Title string
		Datasource  datasource
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct {
			RefID        string `json:"refId"`
			Expr         string
			LegendFormat string
			Datasource   datasource
		}
	}
	Templating struct {
		List []struct {
			Name, Type string
			Definition string
		}
	}
}

type datasource struct{ Type, UID string }

func dashboard(t *testing.T) board {
	t.Helper()
	var b board
	if err := json.Unmarshal([]byte(text(t, dashboardFile)), &b); err != nil {
		t.Fatal(err)
	}
	if len(b.Panels) < 30 {
		t.Fatalf("only %d panels", len(b.Panels))
	}
	return b
}

// A dashboard that asks for what is not there shows an empty panel, which at
// night looks like good news.
func TestDashboardAsksForWhatIsThere(t *testing.T) {
	t.Parallel()
	metrics, b := scraped(t), dashboard(t)
	if b.ID != nil || b.SchemaVersion < 39 {
		t.Errorf("id %v, schema %d", b.ID, b.SchemaVersion)
	}
	chosen := datasource{"prometheus", "${datasource}"}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	titles := map[string]bool{}
	for i, p := range b.Panels {
		if p.ID != nil || titles[p.Title] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q: an id, a title that is used twice, or beyond the edge: %+v", p.Title, p.GridPos)
		}
		titles[p.Title] = true
		for _, q := range b.Panels[:i] {
			if a, z := p.GridPos, q.GridPos; a.X < z.X+z.W && z.X < a.X+a.W && a.Y < z.Y+z.H && z.Y < a.Y+a.H {
				t.Errorf("%q lies on %q", p.Title, q.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("%q asks %v for %d things", p.Title, p.Datasource, len(p.Targets))
		}
		for _, q := range p.Targets {
			checkQuery(t, metrics, p.Title, q.Expr)
			if q.Datasource != chosen || q.RefID == "" {
				t.Errorf("%q: target %q asks %v", p.Title, q.RefID, q.Datasource)
			}
			for _, l := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !slices.ContainsFunc(metricName.FindAllString(q.Expr, -1), func(m string) bool { return metrics[m][l[1]] }) {
					t.Errorf("%q: nothing in the query has the label %s", p.Title, l[1])
				}
			}
		}
	}
	var variables []string
	for _, v := range b.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" {
			checkQuery(t, metrics, "variable "+v.Name, v.Definition)
		}
	}
	for _, want := range []string{"datasource", "server", "database", "status_page"} {
		if !slices.Contains(variables, want) {
			t.Errorf("no variable %s", want)
		}
	}
	used := regexp.MustCompile(`\$\{?([a-z]\w*)`)
	for _, v := range used.FindAllStringSubmatch(text(t, dashboardFile), -1) {
		if !slices.Contains(variables, v[1]) {
			t.Errorf("there is no variable %s", v[1])
		}
	}
}

// Rules and text name what a scrape shows, and the text names all of it, if only
// by its end where several begin alike.
func TestRulesAndDocsNameWhatIsThere(t *testing.T) {
	t.Parallel()
	metrics := scraped(t)
	exprs := regexp.MustCompile(`(?m)^        expr: (?:>-\n((?:          .*\n)+)|(.*)\n)`).FindAllStringSubmatch(text(t, rulesFile), -1)
	if len(exprs) != len(alerts(t)) {
		t.Fatalf("%d expressions of %d alerts", len(exprs), len(alerts(t)))
	}
	for _, e := range exprs {
		checkQuery(t, metrics, "the rules", e[1]+e[2])
	}
	docs := text(t, operations)
	for _, name := range metricName.FindAllString(docs, -1) {
		if metrics[name] == nil && metrics[name+"_bucket"] == nil && (strings.HasPrefix(name, "immuaudit_") || strings.HasPrefix(name, "immuclient_audit_")) {
			t.Errorf("%s: there is no metric %s", operations, name)
		}
	}
	for name := range metrics {
		if !strings.HasPrefix(name, "immuaudit_") {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		told := strings.Contains(docs, "`"+name+"`")
		for i, c := range name {
			told = told || c == '_' && strings.Contains(docs, "`…"+name[i:]+"`")
		}
		if !told {
			t.Errorf("%s does not tell of %s", operations, name)
		}
	}
}

func alerts(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(text(t, rulesFile), -1) {
		names = append(names, m[1])
	}
	return names
}

func ruleTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(rulesFile), "*.test.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("tests of the rules: %v, %v", files, err)
	}
	return files
}

// Whoever is woken finds what to do, and nothing is described that cannot wake.
func TestEveryAlertIsInTheRunbook(t *testing.T) {
	t.Parallel()
	_, book, found := strings.Cut(text(t, operations), "\n## Runbook\n")
	if !found {
		t.Fatal("there is no runbook")
	}
	book, _, _ = strings.Cut(book, "\n## ")
	entries := map[string]string{}
	for _, section := range strings.Split(book, "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		entries[name] = body
	}
	rules := text(t, rulesFile)
	tests := ""
	for _, file := range ruleTests(t) {
		tests += text(t, file)
	}
	names := alerts(t)
	for _, name := range names {
		for _, part := range []string{"**Means:** ", "**Look", "**Harmless if:** "} {
			if !strings.Contains(entries[name], part) {
				t.Errorf("the runbook's entry for %s has no %q", name, part)
			}
		}
		if !strings.Contains(entries[name], "**Do:** ") && !strings.Contains(entries[name], "**Look and do:** ") {
			t.Errorf("the runbook does not say what to do about %s", name)
		}
		if !strings.Contains(rules, "runbook: docs/operations.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s does not lead to its entry in the runbook", name)
		}
		if !strings.Contains(tests, "alertname: "+name+"\n        exp_alerts:") {
			t.Errorf("no test sees %s fire", name)
		}
		if !strings.Contains(tests, "alertname: "+name+"}\n") {
			t.Errorf("no test sees %s not fire", name)
		}
	}
	if slices.Sort(names); !slices.Equal(names, slices.Sorted(maps.Keys(entries))) {
		t.Errorf("alerts  %v\nrunbook %v", names, slices.Sorted(maps.Keys(entries)))
	}
}

// TestPromtool lets Prometheus's own tool try the rules and read every query of
// the dashboard. IMMUAUDIT_PROMTOOL is its path.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := os.Getenv("IMMUAUDIT_PROMTOOL")
	if promtool == "" {
		if os.Getenv("IMMUAUDIT_CI") != "" {
			t.Fatal(`IMMUAUDIT_PROMTOOL is not set; run eval "$(.ci/promtool)"`)
		}
		t.Log(`IMMUAUDIT_PROMTOOL is not set: rules and queries are not tried; eval "$(.ci/promtool)" sets it`)
		return
	}
	for _, args := range [][]string{
		{"check", "rules", rulesFile},
		append([]string{"test", "rules"}, ruleTests(t)...),
		{"check", "rules", asRules(t)},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// asRules writes the dashboard's queries as recording rules, which promtool
// parses; JSON is YAML as well.
func asRules(t *testing.T) string {
	t.Helper()
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	values := strings.NewReplacer("$__rate_interval", "1m", "$server", ".*", "$database", ".*")
	var rules []rule
	for _, p := range dashboard(t).Panels {
		for _, q := range p.Targets {
			rules = append(rules, rule{"q" + string(rune('a'+len(rules)%26)) + strings.Repeat("_", len(rules)/26), values.Replace(q.Expr)})
		}
	}
	data, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.rules.yml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
