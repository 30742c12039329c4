package alert

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A receiver that echoes its address, in whatever form, tells nobody else what
// in it is a secret.
func TestAddressIsNotQuoted(t *testing.T) {
	t.Parallel()
	const segment, decoded, value, odd = "T0KEN%2Fof-path", "T0KEN/of-path", "v%40lue-of-query", "bare-token"
	for _, echo := range []func(r *http.Request) string{
		func(r *http.Request) string { return r.RequestURI },
		func(r *http.Request) string { return r.URL.EscapedPath() },
		func(r *http.Request) string { return r.URL.Path },
		func(r *http.Request) string { return r.URL.RawQuery },
		func(r *http.Request) string { return "no channel " + strings.Split(r.URL.EscapedPath(), "/")[2] },
		func(r *http.Request) string { return "no channel " + decoded },
		func(r *http.Request) string { return "no key " + r.URL.Query().Get("key") },
		func(r *http.Request) string { return "no key " + strings.Split(r.URL.RawQuery, "&")[1] },
		func(r *http.Request) string { return quoted(r.RequestURI, true) },
		func(r *http.Request) string { return "longer " + odd + "-er" },
	} {
		var sent string
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			sent = echo(r)
			_, _ = w.Write([]byte("v1: " + sent))
		}))
		e, err := authorized(receiver.URL+"/hook/"+segment+"?key="+value+"&"+odd+"&more="+odd+"-er&v=1", "1", nil, "", "bare")
		if err != nil {
			t.Fatal(err)
		}
		err = e.send(context.Background(), http.MethodPost, nil, http.Header{}, success)
		var refused *Refusal
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if !strings.HasPrefix(refused.Quote, "v1: ") || !strings.Contains(refused.Quote, "***") {
			t.Errorf("%q became %q", sent, refused.Quote)
		}
		for _, secret := range []string{"T0KEN", "of-path", "lue-of-query", "token", "-er"} {
			if strings.Contains(refused.Quote, secret) {
				t.Errorf("%q became %q", sent, refused.Quote)
			}
		}
		e.Close()
		receiver.Close()
	}
}
