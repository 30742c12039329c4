package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed pages
var files embed.FS

// looks are the templates with the policy that lets their style and script in.
type looks struct {
	pages  *template.Template
	Style  template.HTML
	Script template.HTML
	policy string
}

func newLooks() looks {
	l := looks{}
	style, script := asset("style.css"), asset("live.js")
	l.Style, l.Script = template.HTML("<style>"+style+"</style>"), template.HTML("<script>"+script+"</script>")
	l.policy = "default-src 'none'; style-src '" + digest(style) + "'; script-src '" + digest(script) +
		"'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	l.pages = template.Must(template.New("").Funcs(template.FuncMap{
		"moment": moment, "machine": machine, "count": count, "label": label, "prose": prose,
	}).ParseFS(files, "pages/*.html"))
	return l
}

func asset(name string) string {
	text, err := files.ReadFile("pages/" + name)
	if err != nil {
		panic(err) // embedded above
	}
	return string(text)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// frame is what every page has.
type frame struct {
	Style, Script template.HTML
	Root          string // leads to the first page, whatever is before it
	Title         string
	Verdict       string // of the page: how it is coloured
	Icon          template.URL
	Version       string
	Now           time.Time
	View          any
}

// colours of the icon: those of the style sheet.
var colours = map[string]string{"consistent": "%23116633", "tampered": "%23b00020", "undetermined": "%23845400"}

func icon(verdict string) template.URL {
	colour := colours[verdict]
	if colour == "" {
		colour = "%23555555"
	}
	return template.URL("data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='4' fill='" + colour + "'/></svg>")
}

// rootOf leads from the page's address to the first page: relative, so that a
// proxy may serve everything below a path of its own.
func rootOf(r *http.Request) string {
	if depth := strings.Count(r.URL.EscapedPath(), "/") - 1; depth > 0 {
		return strings.Repeat("../", min(depth, 8))
	}
	return "./"
}

func (s *Site) render(w http.ResponseWriter, r *http.Request, code int, name, title, verdict string, view any) {
	var body bytes.Buffer
	err := s.looks.pages.ExecuteTemplate(&body, name, frame{
		Style: s.looks.Style, Script: s.looks.Script, Root: rootOf(r), Title: title, Verdict: verdict, Icon: icon(verdict),
		Version: label(s.opts.Version), Now: time.Now(), View: view,
	})
	if err != nil {
		s.opts.Logger.Error("making a page failed", "page", name, "error", err)
		http.Error(w, "making the page failed; the log says why, and the metrics are at /metrics", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	s.secured(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.looks.policy)
	h.Set("Vary", "Accept") // the metrics are at the same address as the first page
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // a visitor that went away needs no answer
}

func (s *Site) secured(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "deny")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// oops is a page that says what is wrong and where to go on.
func (s *Site) oops(w http.ResponseWriter, r *http.Request, code int, what string) {
	s.render(w, r, code, "oops.html", http.StatusText(code), "", what)
}

func (s *Site) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /{$}", s.home)
	s.mux.HandleFunc("GET /ledger", s.ledgerPage)
	s.mux.HandleFunc("GET /ledger/{server}/{database}", s.ledgerPage)
	s.mux.HandleFunc("GET /incidents", s.incidentsPage)
	s.mux.HandleFunc("GET /incident/{id}", s.incidentPage)
	s.mux.HandleFunc("GET /incident/{id}/evidence", s.download)
	s.routeAPI()
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.oops(w, r, http.StatusMethodNotAllowed, "Nothing can be changed here: only GET and HEAD are answered.")
			return
		}
		s.oops(w, r, http.StatusNotFound, "There is no page at this address.")
	})
}
