package manifests

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func TestCompose(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{"../../deploy/docker-compose.yml"}, cli.WithName("immuaudit"), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	auditor, err := project.GetService("auditor")
	if err != nil || len(project.Services) != 3 {
		t.Fatalf("%d services: %v", len(project.Services), err)
	}
	if auditor.Image != "immuaudit:latest" || !auditor.ReadOnly || !slices.Equal(auditor.CapDrop, []string{"ALL"}) {
		t.Errorf("%s, read-only %v, without %v", auditor.Image, auditor.ReadOnly, auditor.CapDrop)
	}
	volumes := map[string]string{}
	for _, v := range auditor.Volumes {
		if v.Type != types.VolumeTypeVolume || v.Source == "" {
			t.Errorf("something lies on %+v", v)
		}
		volumes[v.Target] = v.Source
	}
	if len(volumes) != 2 || volumes["/var/lib/immuclient"] == "" || volumes["/var/lib/immuclient"] == volumes["/var/lib/immuclient-guard"] {
		t.Errorf("the state and its guard lie on %v", volumes)
	}
	if guard := auditor.Environment["IMMUCLIENT_STATE_GUARD"]; guard == nil || path.Dir(*guard) != "/var/lib/immuclient-guard" {
		t.Errorf("the guard is %v", guard)
	}
	secret := auditor.Environment["IMMUCLIENT_AUDIT_PASSWORD_FILE"]
	if secret == nil || *secret != "/run/secrets/"+auditor.Secrets[0].Source {
		t.Errorf("the password comes from %v", secret)
	}
	for name, service := range project.Services {
		for _, p := range service.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s is open to other machines at %s", name, p.Published)
			}
		}
		if name != "auditor" && !strings.Contains(service.Image, ":") {
			t.Errorf("%s has no version", service.Image)
		}
	}
}
