package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// What scrapers and probes of the original find, with immudb up and down.
func TestMonitoringPort(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := s.write("defaultdb", 4); err != nil {
		t.Fatal(err)
	}
	a := audit(t, dir, s.Addr(), "--audit-interval", "50ms", "--password", "command-line-secret")
	labels := `{server_address="` + s.Addr() + `",server_id="` + s.UUID() + `"} `
	a.shows("/metrics", "immuclient_audit_result_per_server"+labels+"1\n")
	for _, path := range []string{"/initz", "/readyz", "/livez"} {
		code, header, body := a.get(path)
		if code != 200 || body != `{"immudb":"OK"}` || header.Get("Content-Type") != "application/json" || header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s with immudb up: %d %v %s", path, code, header, body)
		}
	}
	for _, path := range []string{"/", "/metrics"} {
		code, header, body := a.get(path)
		for _, want := range []string{
			"# HELP immuclient_audit_curr_root_per_server Current root index used for the latest audit.\n",
			"# HELP immuclient_audit_prev_root_per_server Previous root index used for the latest audit.\n",
			"# HELP immuclient_audit_result_per_server Latest audit result (1 = ok, 0 = tampered).\n",
			"# HELP immuclient_audit_run_at_per_server Timestamp in unix seconds at which latest audit run.\n",
			"immuclient_audit_curr_root_per_server" + labels + "4\n",
			"immuclient_audit_prev_root_per_server" + labels + "4\n",
			`immuaudit_ledger_verdict{database="defaultdb",server="tested",verdict="consistent"} 1` + "\n",
			`immuaudit_ledger_walked_tx{database="defaultdb",server="tested"} 4` + "\n",
			"process_resident_memory_bytes ", "go_goroutines ",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %q", path, want)
			}
		}
		if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %v", path, code, header)
		}
	}
	code, header, body := a.get("/version")
	var version struct {
		Component, Version, BuildTime string
		Static, FIPS                  *bool
	}
	if err := json.Unmarshal([]byte(body), &version); err != nil {
		t.Fatal(err)
	}
	if code != 200 || version.Component != "immuclient-auditor" || version.Version == "" || version.Static == nil || version.FIPS == nil ||
		header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("/version: %d %v %s", code, header, body)
	}
	if code, _, body = a.get("/debug/vars"); code != 200 || !json.Valid([]byte(body)) {
		t.Errorf("/debug/vars: %d %s", code, body)
	}
	for _, secret := range []string{"command-line-secret", "cmdline", s.Addr()} {
		if strings.Contains(body, secret) {
			t.Errorf("/debug/vars publishes %q", secret)
		}
	}
	resp, page, err := fetch(http.MethodGet, "http://"+a.monitoring+"/", "", http.Header{"Accept": {"text/html,*/*"}}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(string(page), "defaultdb") || strings.Contains(string(page), "//cdn") {
		t.Errorf("the page: %v %s", resp.Header, page)
	}
	if resp, _, err := fetch(http.MethodPost, "http://"+a.monitoring+"/metrics", "", nil, "", "", nil); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v %v", resp, err)
	}

	// An immudb that is down must not get its auditor killed; initz and the
	// member still tell.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "initz says that immudb is down", func() (bool, error) {
		code, _, body := a.get("/initz")
		return code == 503 && !strings.Contains(body, `"OK"`), nil
	})
	for _, path := range []string{"/readyz", "/livez"} {
		if code, _, body := a.get(path); code != 200 || !strings.HasPrefix(body, `{"immudb":"`) || strings.Contains(body, "OK") {
			t.Errorf("%s with immudb down: %d %s", path, code, body)
		}
	}
	a.shows("/metrics", "immuclient_audit_result_per_server"+labels+"-2\n")
	a.shows("/metrics", `immuaudit_ledger_verdict{database="defaultdb",server="tested",verdict="undetermined"} 1`)
	a.stop(syscall.SIGTERM)
}

// With TLS and basic authentication on the monitoring port, probes stay open
// on the probe address and on the socket, and say nothing but health there.
func TestMonitoringPortWithAuthentication(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := writeCertificates(filepath.Join(dir, "pki")); err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("let-me-in"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("tls_server_config:\n  cert_file: pki/server.pem\n  key_file: pki/server.key\nbasic_auth_users:\n  prometheus: %s\n", hash)
	file := filepath.Join(dir, "web.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	probe := freeAddress(t)
	a := audit(t, dir, s.Addr(), "--web.config.file", file, "--audit-probe-address", probe)
	pool := x509.NewCertPool()
	authority, err := os.ReadFile(filepath.Join(dir, "pki", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(authority)
	ask := func(url, socket, user, password string) (int, string) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		resp, body, err := fetch(http.MethodGet, url, socket, nil, user, password, transport)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/metrics", "/livez", "/debug/vars", "/"} {
		if code, _ := ask("https://"+a.monitoring+path, "", "", ""); code != 401 {
			t.Errorf("%s without a password: %d, want 401", path, code)
		}
		if code, _ := ask("https://"+a.monitoring+path, "", "prometheus", "wrong"); code != 401 {
			t.Errorf("%s with a wrong password: %d, want 401", path, code)
		}
		if code, _ := ask("https://"+a.monitoring+path, "", "prometheus", "let-me-in"); code != 200 {
			t.Errorf("%s with the password: %d, want 200", path, code)
		}
	}
	if code, _ := ask("http://"+a.monitoring+"/metrics", "", "prometheus", "let-me-in"); code != 400 {
		t.Errorf("plaintext on the TLS port: %d, want 400", code)
	}
	socket := filepath.Join(dir, "state", "probe.sock")
	for name, where := range map[string][2]string{"probe address": {probe, ""}, "socket": {"localhost", socket}} {
		for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 404, "/": 404, "/debug/vars": 404, "/initz": 404} {
			err := poll(func() (bool, error) { // readyz waits for the first round
				code, body := ask("http://"+where[0]+path, where[1], "", "")
				return code == want, fmt.Errorf("%d %s", code, body)
			})
			if err != nil {
				t.Errorf("%s on the %s, want %d: %v", path, name, want, err)
			}
		}
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info, err)
	}
	a.stop(syscall.SIGTERM)
}

// freeAddress gives an address that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
