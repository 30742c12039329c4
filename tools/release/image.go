package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	imageName  = "immuaudit"
	program    = "/usr/bin/immuclient"
	stateDir   = "/var/lib/immuclient"
	guardDir   = "/var/lib/immuclient-guard"
	monitoring = "9477/tcp"
	// nobody's number on most systems, and nobody else's: no name needed, and
	// Kubernetes can see that it is not root.
	userID = 65532
)

var imagePlatforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}}

// imageConfig is what the Dockerfile says as well (a test compares them).
func imageConfig(src source) v1.Config {
	return v1.Config{
		User:       fmt.Sprintf("%d:%d", userID, userID),
		Entrypoint: []string{program},
		// docker run IMAGE is an auditor; docker run IMAGE trust list is not.
		Cmd: []string{"audit-mode"},
		Env: []string{
			"PATH=/usr/bin",
			"IMMUCLIENT_DIR=" + stateDir,
			"IMMUCLIENT_LOGFILE=-",
			"IMMUCLIENT_LOG_FORMAT=json",
		},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{monitoring: {}},
		Volumes:      map[string]struct{}{stateDir: {}},
		StopSignal:   "SIGTERM",
		Healthcheck: &v1.HealthConfig{
			Test: []string{"CMD", program, "health"}, Interval: 30 * time.Second, Timeout: 5 * time.Second,
			StartPeriod: time.Minute, Retries: 3,
		},
		Labels: labels(src),
	}
}

// labels are the annotations of the OCI image specification.
func labels(src source) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "immuaudit",
		"org.opencontainers.image.description": "Independent auditor for immudb",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     src.version,
		"org.opencontainers.image.revision":    src.commit,
		"org.opencontainers.image.created":     src.time.Format(time.RFC3339),
	}
}

// buildImages writes the image of every platform, which docker load takes, one
// image for all of them, which registries take, and the lists of what is in.
func buildImages(src source, out string) error {
	work, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range imagePlatforms {
		file := filepath.Join(work, p.os+"-"+p.arch)
		if err := src.build(p, file); err != nil {
			return err
		}
		bill, err := src.sbom(p, file)
		if err != nil {
			return err
		}
		img, err := src.image(p, file, bill)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s-image-%s-%s-%s", imageName, src.version, p.os, p.arch)
		if err := os.WriteFile(filepath.Join(out, name+".spdx.json"), bill, 0o644); err != nil {
			return err
		}
		if err := src.writeLayout(filepath.Join(out, name+".tar"), img, nil); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: p.os, Architecture: p.arch}},
		})
	}
	all, ok := mutate.Annotations(index, labels(src)).(v1.ImageIndex)
	if !ok {
		return fmt.Errorf("annotating the index gave no index")
	}
	digest, err := all.Digest()
	if err != nil {
		return err
	}
	file := filepath.Join(out, fmt.Sprintf("%s-image-%s.tar", imageName, src.version))
	if err := src.writeLayout(file, nil, all); err != nil {
		return err
	}
	fmt.Println(file, digest)
	return nil
}

// image is the program, its licence and the list of its parts, and places for
// the state and for its guard that belong to the user: a volume made there
// begins with its owner and mode.
func (src source) image(p platform, file string, bill []byte) (v1.Image, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	license, err := os.ReadFile(filepath.Join(src.root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	content, err := tarOf([]entry{
		{name: program[1:], mode: 0o755, body: binary},
		{name: "usr/share/doc/immuclient/LICENSE", mode: 0o644, body: license},
		{name: "usr/share/doc/immuclient/immuclient.spdx.json", mode: 0o644, body: bill},
		{name: stateDir[1:] + "/", mode: 0o700, owner: userID},
		{name: guardDir[1:] + "/", mode: 0o700, owner: userID},
	}, src.time)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: src.time}
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "immuaudit tools/release"}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created, config.Config = p.os, p.arch, created, imageConfig(src)
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(img, labels(src)).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("annotating the image gave no image")
	}
	return annotated, nil
}

// writeLayout writes an OCI image layout as one tar file, named so that docker
// load and podman load know what to call it.
func (src source) writeLayout(file string, img v1.Image, index v1.ImageIndex) error {
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	for _, tag := range []string{src.version, "latest"} {
		named := layout.WithAnnotations(map[string]string{
			"io.containerd.image.name":          "docker.io/library/" + imageName + ":" + tag,
			"org.opencontainers.image.ref.name": tag,
			"org.opencontainers.image.created":  src.time.Format(time.RFC3339),
		})
		if img != nil {
			err = path.AppendImage(img, named)
		} else {
			err = path.AppendIndex(index, named)
		}
		if err != nil {
			return err
		}
	}
	if img != nil {
		if err := writeDockerManifest(dir, img, src.version); err != nil {
			return err
		}
	}
	var entries []entry
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		entries = append(entries, entry{name: filepath.ToSlash(rel), mode: 0o644, body: body})
		return err
	})
	if err != nil {
		return err
	}
	packed, err := tarOf(entries, src.time)
	if err != nil {
		return err
	}
	return os.WriteFile(file, packed, 0o644)
}

// writeDockerManifest adds what Docker looks for where it keeps images in its
// own store instead of containerd's.
func writeDockerManifest(dir string, img v1.Image, version string) error {
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	config, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	m := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blob(config), RepoTags: []string{imageName + ":" + version, imageName + ":latest"}}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, blob(digest))
	}
	text, err := json.Marshal([]any{m})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.json"), text, 0o644)
}
