package service

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, doc string
		settings  []Setting
		want      string
	}{
		{"nothing", "a = 1\n", nil, "a = 1\n"},
		{"empty", "", []Setting{{"a", "1"}}, "a = 1\n"},
		{"replaced, comment kept", "# why\na = 1   # because\nb = 2\n", []Setting{{"a", "3"}}, "# why\na = 3   # because\nb = 2\n"},
		{"same value", "a = \"x\"\n", []Setting{{"a", `"x"`}}, "a = \"x\"\n"},
		{"below its default", "# what it is\n#a = 1\n\n# other\n#b = 2\n", []Setting{{"a", "3"}}, "# what it is\n#a = 1\na = 3\n\n# other\n#b = 2\n"},
		{"a default of a longer name is another", "#ab = 1\n", []Setting{{"a", "3"}}, "#ab = 1\na = 3\n"},
		{"at the end", "b = 2 # two\n", []Setting{{"a", "1"}, {"c", "3"}}, "b = 2 # two\na = 1\nc = 3\n"},
		{"no line break at the end", "b = 2", []Setting{{"a", "1"}}, "b = 2\na = 1"},
		{"a comment without line break", "# b", []Setting{{"a", "1"}}, "# b\na = 1\n"},
		{"before tables", "b = 2\n\n# of t\n[t]\nc = 1\n", []Setting{{"a", "1"}}, "b = 2\na = 1\n\n# of t\n[t]\nc = 1\n"},
		{"nothing outside of tables", "[t]\nc = 1\n", []Setting{{"a", "1"}}, "a = 1\n[t]\nc = 1\n"},
		{"a key of that name in a table is another", "[t]\na = 1\n", []Setting{{"a", "2"}}, "a = 2\n[t]\na = 1\n"},
		{"dotted", "web.config.file = 'a'\n", []Setting{{"web.config.file", `"b"`}}, "web.config.file = \"b\"\n"},
		{"in its table", "x = 1\n[web.config]\nfile = 'a'\n", []Setting{{"web.config.file", `"b"`}}, "x = 1\n[web.config]\nfile = \"b\"\n"},
		{"new in its table", "[web] # w\n", []Setting{{"web.config.file", `"b"`}}, "[web] # w\nconfig.file = \"b\"\n"},
		{"quoted", "\"web.config.file\" = 'a'\n", []Setting{{"web.config.file", `"b"`}}, "\"web.config.file\" = \"b\"\n"},
		{"array over lines", "a = [ # names\n 'x', \"]\", # ]\n]  # end\nb = 1\n", []Setting{{"a", `["y"]`}}, "a = [\"y\"]  # end\nb = 1\n"},
		{"text over lines", "a = \"\"\"\nb = 1 \\\"\"\"\n\"\"\"\"\nb = 2\n", []Setting{{"b", "3"}}, "a = \"\"\"\nb = 1 \\\"\"\"\n\"\"\"\"\nb = 3\n"},
		{"inline table", "a = { b = '}', c = [1] }\n", []Setting{{"a", "1"}}, "a = 1\n"},
		{"windows", "\xef\xbb\xbfa = 1\r\nb = 2\r\n", []Setting{{"b", "3"}, {"c", "4"}}, "\xef\xbb\xbfa = 1\r\nb = 3\r\nc = 4\r\n"},
		{"lists of tables", "b = 2\n\n# of one\n[[server]]\na = 1 # its own\n\n[[server]]\na = 2\n[[sink]]\nname = 'x'\n", []Setting{{"a", "3"}},
			"b = 2\na = 3\n\n# of one\n[[server]]\na = 1 # its own\n\n[[server]]\na = 2\n[[sink]]\nname = 'x'\n"},
		{"nothing outside of lists of tables", "[[server]]\na = 1\n", []Setting{{"a", "3"}}, "a = 3\n[[server]]\na = 1\n"},
		{"lists of tables below defaults", "#a = 1\n[[server]]\n#a = 1\na = 2\n", []Setting{{"a", "3"}}, "#a = 1\na = 3\n[[server]]\n#a = 1\na = 2\n"},
		{"a dollar", "a = 1\n", []Setting{{"a", `"$1 $$"`}}, "a = \"$1 $$\"\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Merge([]byte(tt.doc), tt.settings)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			again, err := Merge(got, tt.settings)
			if err != nil || string(again) != string(got) {
				t.Errorf("merged again: %v\n%s", err, again)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"a = 1\n\"a\" = 2\n": "line 2: a is set twice",
		"a = 1 b = 2\n":      "", // a bare value reaches to the end of the line
		"a = \"x\n":          "line 1: a string does not end",
		"a = '''x\n":         "a string does not end",
		"a = [1,\n":          "does not end",
		"a = {b\n":           "without a value",
		"a\n":                "line 1: a key without a value",
		"x = 1\na =\n":       "line 2: a value is missing",
		"[a\n":               "does not end",
		"= 1\n":              "a key is missing",
		"\"\\u0061\" = 1\n":  "escape",
		"a = " + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "\n": "too deep",
	} {
		_, err := Merge([]byte(doc), []Setting{{"a", "1"}})
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", doc, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", doc, err, want)
		}
	}
}

func TestUnset(t *testing.T) {
	t.Parallel()
	got, err := Unset([]byte("a = 1 # one\nport = [\n 1,\n]\nb = 2\n[t]\na = 3\n"), "not ours", "a", "port")
	if err != nil {
		t.Fatal(err)
	}
	const want = "# not ours\n# a = 1 # one\n# not ours\n# port = [\n#  1,\n# ]\nb = 2\n[t]\na = 3\n"
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	got, err := Redact([]byte("# the old password = s3cret\n#password = \"s3cret\"\n#password = \"\"\npassword = \"s3cret\" # s\nuser = 'x'\n"), "password")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "s3cret") {
		t.Errorf("a secret is shown:\n%s", got)
	}
	for _, want := range []string{"password = \"(hidden)\" # s\n", "user = 'x'\n", "#password = \"\"\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

// FuzzMerge compares with a TOML library: what it reads before the merge it
// reads after it, but for the key that was set.
func FuzzMerge(f *testing.F) {
	for _, doc := range []string{
		"", "a = 1\n", "#a = 1\nb = '''\n'''\n", "[t]\na = 1\n", "a = [1, # x\n2]\n", "a = {b = 1}\n", "a = \"\\\"\"\r\nb=1\r\n",
		"[[x]]\na = 1\n", "a.b = 1\n", "\"a\" = 1\n", "d = 1979-05-27 07:32:00\n", "\xef\xbb\xbfa=1", "x=\"\"\"a\"\"\"\"\"\ny=1", "[web]\n[web.config]\n",
	} {
		f.Add(doc, "a")
		f.Add(doc, "web.config.file")
	}
	f.Fuzz(func(t *testing.T, doc, name string) {
		for _, part := range strings.Split(name, ".") {
			if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz-") != "" {
				return
			}
		}
		var before map[string]any
		if toml.Unmarshal([]byte(strings.TrimPrefix(doc, string(bom))), &before) != nil {
			return
		}
		merged, err := Merge([]byte(doc), []Setting{{name, `"new"`}})
		if err != nil {
			return // it may refuse what it does not understand, but must not spoil it
		}
		var after map[string]any
		if err := toml.Unmarshal([]byte(strings.TrimPrefix(string(merged), string(bom))), &after); err != nil {
			// A table where the name wants a value, or the reverse, is for the reader to refuse.
			if conflicts(before, strings.Split(name, ".")) {
				return
			}
			t.Fatalf("%q became %q: %v", doc, merged, err)
		}
		want, got := flat("", before), flat("", after)
		maps.DeleteFunc(want, func(k string, _ any) bool { return k == name || strings.HasPrefix(k, name+".") })
		if got[name] != "new" {
			t.Fatalf("%q became %q: %s is %v", doc, merged, name, got[name])
		}
		delete(got, name)
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("%q became %q:\n%v\n%v", doc, merged, want, got)
		}
	})
}

func conflicts(m map[string]any, parts []string) bool {
	for i, part := range parts {
		v, ok := m[part]
		if !ok {
			return false
		}
		inner, isTable := v.(map[string]any)
		if !isTable || i == len(parts)-1 {
			return true
		}
		m = inner
	}
	return true
}

func flat(prefix string, v any) map[string]any {
	out := map[string]any{}
	m, ok := v.(map[string]any)
	if !ok {
		out[strings.TrimSuffix(prefix, ".")] = v
		return out
	}
	for k, inner := range m {
		maps.Copy(out, flat(prefix+k+".", inner))
	}
	return out
}

func TestRedactTables(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"[[server]]\npassword = \"s3cret\" # s\nname = 'a'\n":   "[[server]]\npassword = \"(hidden)\" # s\nname = 'a'\n",
		"[[other]]\npassword = 'x'\n":                           "[[other]]\npassword = 'x'\n",
		"server = [{name = 'a', password = 's3cret'}]\nb = 1\n": "server = \"(hidden)\"\nb = 1\n",
		"server.password = 's3cret'\n":                          "server.password = \"(hidden)\"\n",
	} {
		got, err := Redact([]byte(doc), "server.password")
		if err != nil || string(got) != want {
			t.Errorf("%q: %v\n%s", doc, err, got)
		}
	}
}

func TestHasTables(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]bool{
		"": false, "a = 1\n# [[server]]\n": false, "[[server]]\n": true, "server = [{}]\n": true, "[x]\nserver = 1\n": false, "a = 1\n[[x]]\n[[sink]]\n": true,
	} {
		if got, err := HasTables([]byte(doc), "server", "sink"); err != nil || got != want {
			t.Errorf("%q: %v, %v", doc, got, err)
		}
	}
}
