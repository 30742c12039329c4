package manifests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	kustomize "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../../deploy/kubernetes"

// kinds are those that may appear, with their version.
func kinds() map[string]any {
	return map[string]any{
		"v1/ServiceAccount": &core.ServiceAccount{}, "v1/ConfigMap": &core.ConfigMap{}, "v1/Secret": &core.Secret{}, "v1/Service": &core.Service{},
		"apps/v1/StatefulSet": &apps.StatefulSet{}, "networking.k8s.io/v1/NetworkPolicy": &networking.NetworkPolicy{},
		"monitoring.coreos.com/v1/ServiceMonitor":       &monitoring.ServiceMonitor{},
		"kustomize.config.k8s.io/v1beta1/Kustomization": &kustomize.Kustomization{},
	}
}

// decode reads one document strictly: unknown, misplaced and repeated keys are
// errors, and so is a kind that is not expected.
func decode(t *testing.T, where string, doc []byte) (kind string, object any) {
	t.Helper()
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	kind = head.APIVersion + "/" + head.Kind
	object = kinds()[kind]
	if object == nil {
		t.Fatalf("%s: unexpected %s", where, kind)
	}
	asJSON, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	// As the API server: names of fields in the wrong case are unknown, too.
	strict, err := json.UnmarshalStrict(asJSON, object)
	if err := errors.Join(append(strict, err)...); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return kind, object
}

func documents(t *testing.T, data []byte) (docs [][]byte) {
	t.Helper()
	for r := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data))); ; {
		buffer := make([]byte, 1<<20)
		n, err := r.Read(buffer)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatal(err)
		}
		if doc := bytes.TrimSpace(buffer[:n]); len(doc) > 0 {
			docs = append(docs, doc)
		}
	}
}

func TestEveryFileIsStrictlyRight(t *testing.T) {
	t.Parallel()
	seen := 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if filepath.Ext(path) != ".yaml" {
			t.Errorf("%s: what is this?", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, doc := range documents(t, data) {
			decode(t, path, doc)
			seen++
		}
		return nil
	})
	if err != nil || seen < 8 {
		t.Errorf("%d documents: %v", seen, err)
	}
}

// build renders a kustomization as kubectl apply -k does.
func build(t *testing.T, dir string) map[string]any {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]any{}
	for _, doc := range documents(t, data) {
		kind, object := decode(t, dir, doc)
		if objects[kind] != nil {
			t.Errorf("two of %s", kind)
		}
		objects[kind] = object
	}
	return objects
}

func TestKustomization(t *testing.T) {
	t.Parallel()
	objects := build(t, root)
	if len(objects) != 5 {
		t.Errorf("%d objects", len(objects))
	}
	set := objects["apps/v1/StatefulSet"].(*apps.StatefulSet)
	pod := &set.Spec.Template
	container := &pod.Spec.Containers[0]

	// The standard "restricted", judged as the cluster does.
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			t.Errorf("pod security: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	if c := container.SecurityContext; c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem {
		t.Error("the root file system can be written")
	}
	if l := pod.Spec.EnableServiceLinks; l == nil || *l {
		t.Error("Services would set variables")
	}
	if a := pod.Spec.AutomountServiceAccountToken; a == nil || *a {
		t.Error("the pod is given a token of the cluster")
	}

	// What refers to each other fits together.
	account := objects["v1/ServiceAccount"].(*core.ServiceAccount)
	service := objects["v1/Service"].(*core.Service)
	network := objects["networking.k8s.io/v1/NetworkPolicy"].(*networking.NetworkPolicy)
	configuration := objects["v1/ConfigMap"].(*core.ConfigMap)
	if pod.Spec.ServiceAccountName != account.Name || set.Spec.ServiceName != service.Name {
		t.Error("names of the account or the service")
	}
	for what, labels := range map[string]map[string]string{"set": set.Spec.Selector.MatchLabels, "service": service.Spec.Selector, "policy": network.Spec.PodSelector.MatchLabels} {
		if len(labels) == 0 {
			t.Errorf("the %s selects everything", what)
		}
		for name, value := range labels {
			if pod.Labels[name] != value {
				t.Errorf("the %s selects %s=%s, the pod has %q", what, name, value, pod.Labels[name])
			}
		}
	}
	ports := map[string]int32{}
	for _, p := range container.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if ports["metrics"] != 9477 || ports["probes"] != 9478 {
		t.Errorf("ports %v", ports)
	}
	if service.Spec.Ports[0].TargetPort != intstr.FromString("metrics") || service.Spec.Ports[0].Port != 9477 || network.Spec.Ingress[0].Ports[0].Port.StrVal != "metrics" {
		t.Error("service or policy name another port")
	}
	for path, probe := range map[string]*core.Probe{"/livez": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port != intstr.FromString("probes") {
			t.Errorf("probe %+v", probe.HTTPGet)
		}
	}
	if !strings.Contains(configuration.Data["immuclient.toml"], `audit-probe-address = "0.0.0.0:9478"`) {
		t.Error("the auditor does not listen where it is probed")
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && v.ConfigMap.Name != configuration.Name {
			t.Errorf("the configuration is %s", v.ConfigMap.Name)
		}
	}
	for _, claim := range set.Spec.VolumeClaimTemplates {
		volumes[claim.Name] = true
	}
	writable := []string{}
	for _, m := range container.VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("nothing is mounted at %s", m.MountPath)
		}
		if !m.ReadOnly {
			writable = append(writable, m.MountPath)
		}
	}
	if !slices.Equal(writable, []string{"/var/lib/immuclient", "/var/lib/immuclient-guard"}) || len(set.Spec.VolumeClaimTemplates) != 2 {
		t.Errorf("writable: %v", writable)
	}
	environ := map[string]string{}
	for _, e := range container.Env {
		environ[e.Name] = e.Value
	}
	if !strings.HasPrefix(environ["IMMUCLIENT_DIR"], writable[0]+"/") || filepath.Dir(environ["IMMUCLIENT_STATE_GUARD"]) != writable[1] || environ["IMMUCLIENT_AUDIT_PASSWORD_FILE"] != "/run/secrets/immuaudit/password" {
		t.Errorf("%v", environ)
	}
}

func TestExampleOfTheSecret(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(root, "secret.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, object := decode(t, "secret.example.yaml", data)
	secret := object.(*core.Secret)
	set := build(t, root)["apps/v1/StatefulSet"].(*apps.StatefulSet)
	for _, e := range set.Spec.Template.Spec.Containers[0].Env {
		if ref := e.ValueFrom; ref != nil && (ref.SecretKeyRef.Name != secret.Name || secret.StringData[ref.SecretKeyRef.Key] == "") {
			t.Errorf("%s comes from %s/%s", e.Name, ref.SecretKeyRef.Name, ref.SecretKeyRef.Key)
		}
	}
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.Secret != nil && (v.Secret.SecretName != secret.Name || secret.StringData[v.Secret.Items[0].Key] == "") {
			t.Errorf("the password comes from %s", v.Secret.SecretName)
		}
	}
}

func TestServiceMonitor(t *testing.T) {
	t.Parallel()
	objects := build(t, filepath.Join(root, "monitoring"))
	monitor := objects["monitoring.coreos.com/v1/ServiceMonitor"].(*monitoring.ServiceMonitor)
	service := build(t, root)["v1/Service"].(*core.Service)
	for name, value := range monitor.Spec.Selector.MatchLabels {
		if service.Labels[name] != value {
			t.Errorf("it selects %s=%s, the service has %q", name, value, service.Labels[name])
		}
	}
	if monitor.Namespace != service.Namespace || monitor.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name {
		t.Error("it looks at another port or namespace")
	}
}
