package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// checkImage looks at a finished image as its users will, and says what is not
// as documented.
func checkImage(file string) error {
	return withImages(file, func(images map[string]v1.Image) error {
		if len(images) == 0 {
			return errors.New("there is no image in it")
		}
		for name, img := range images {
			if err := errors.Join(checkOne(name, img)...); err != nil {
				return fmt.Errorf("%s, %s: %w", filepath.Base(file), name, err)
			}
			digest, err := img.Digest()
			if err != nil {
				return err
			}
			fmt.Println(filepath.Base(file), name, digest, "as promised")
		}
		return nil
	})
}

func checkOne(name string, img v1.Image) (wrong []error) {
	want := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	if err := validate.Image(img); err != nil {
		return []error{err}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return []error{err}
	}
	c := file.Config
	want(file.OS+"/"+file.Architecture == name, "it is for %s/%s", file.OS, file.Architecture)
	want(regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(c.User), "the user %q is not a number other than root's", c.User)
	want(slices.Equal(c.Entrypoint, []string{"/usr/bin/immuclient"}), "entry point %q", c.Entrypoint)
	want(slices.Equal(c.Cmd, []string{"audit-mode"}), "command %q", c.Cmd)
	want(len(c.ExposedPorts) == 1 && has(c.ExposedPorts, "9477/tcp"), "exposed %v", c.ExposedPorts)
	want(len(c.Volumes) == 1 && has(c.Volumes, "/var/lib/immuclient"), "volumes %v", c.Volumes)
	want(c.Healthcheck != nil && slices.Equal(c.Healthcheck.Test, []string{"CMD", "/usr/bin/immuclient", "health"}), "health check %v", c.Healthcheck)
	for _, label := range []string{"title", "description", "licenses", "version", "revision", "created"} {
		want(c.Labels["org.opencontainers.image."+label] != "", "the label %s is missing", label)
	}
	for _, variable := range []string{"IMMUCLIENT_LOG_FORMAT=json", "IMMUCLIENT_LOGFILE=-", "IMMUCLIENT_DIR=/var/lib/immuclient"} {
		want(slices.Contains(c.Env, variable), "the variable %s is missing", variable)
	}
	files, err := filesOf(img)
	if err != nil {
		return append(wrong, err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		f.Name = path.Clean(f.Name)
		seen[f.Name] = true
		want(f.Mode&0o7022 == 0, "%s has mode %o", f.Name, f.Mode)
		want(f.Typeflag == tar.TypeReg || f.Typeflag == tar.TypeDir, "%s is neither file nor directory", f.Name)
		if f.Name == "var/lib/immuclient" || f.Name == "var/lib/immuclient-guard" {
			want(f.Mode == 0o700 && fmt.Sprintf("%d:%d", f.Uid, f.Gid) == c.User, "%s has mode %o and owner %d:%d", f.Name, f.Mode, f.Uid, f.Gid)
		} else {
			want(f.Uid == 0 && f.Gid == 0, "%s has owner %d:%d", f.Name, f.Uid, f.Gid)
		}
		if f.Name == "usr/bin/immuclient" {
			wrong = append(wrong, checkProgram(file.Architecture, f.body)...)
		}
	}
	for _, name := range []string{"usr/bin/immuclient", "var/lib/immuclient", "var/lib/immuclient-guard", "usr/share/doc/immuclient/LICENSE", "usr/share/doc/immuclient/immuclient.spdx.json"} {
		want(seen[name], "%s is missing", name)
	}
	return wrong
}

func has(set map[string]struct{}, name string) bool { _, ok := set[name]; return ok }

// checkProgram: nothing in the image could load a library.
func checkProgram(arch string, body []byte) (wrong []error) {
	f, err := elf.NewFile(bytes.NewReader(body))
	if err != nil {
		return []error{err}
	}
	if machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != machine {
		wrong = append(wrong, fmt.Errorf("the program is for %s", f.Machine))
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			wrong = append(wrong, errors.New("the program is not static"))
		}
	}
	return wrong
}

type file struct {
	tar.Header
	body []byte
}

// filesOf reads the root file system of an image.
func filesOf(img v1.Image) (files []file, err error) {
	r := mutate.Extract(img)
	defer func() { err = errors.Join(err, r.Close()) }()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		files = append(files, file{*h, body})
	}
}

// withImages opens an OCI image layout in a tar file and gives its images by
// platform.
func withImages(archive string, use func(map[string]v1.Image) error) error {
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := extract(archive, dir); err != nil {
		return fmt.Errorf("reading %s: %w", archive, err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", archive, err)
	}
	if err := validate.Index(index); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	images := map[string]v1.Image{}
	if err := collect(index, images); err != nil {
		return err
	}
	return use(images)
}

func collect(index v1.ImageIndex, images map[string]v1.Image) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return err
			}
			if err := collect(inner, images); err != nil {
				return err
			}
			continue
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		config, err := img.ConfigFile()
		if err != nil {
			return err
		}
		images[config.OS+"/"+config.Architecture] = img
	}
	return nil
}

func extract(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := place(dir, &file{*h, body}); err != nil {
			return err
		}
	}
}

// place writes a file or directory below dir, and nowhere else.
func place(dir string, f *file) error {
	name := path.Clean(f.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q leads out of the archive", f.Name)
	}
	target := filepath.Join(dir, filepath.FromSlash(name))
	if f.Typeflag == tar.TypeDir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, f.body, f.FileInfo().Mode().Perm())
}

// unpackImage writes the root file system of one platform, with owners where
// this process may give them.
func unpackImage(archive, name, dir string) error {
	return withImages(archive, func(images map[string]v1.Image) error {
		img := images[name]
		if img == nil {
			return fmt.Errorf("%s has no image for %s", archive, name)
		}
		files, err := filesOf(img)
		if err != nil {
			return err
		}
		for i := range files {
			if err := place(dir, &files[i]); err != nil {
				return err
			}
			target := filepath.Join(dir, path.Clean(files[i].Name))
			if err := os.Chmod(target, files[i].FileInfo().Mode().Perm()); err != nil {
				return err
			}
			if os.Geteuid() == 0 {
				if err := os.Lchown(target, files[i].Uid, files[i].Gid); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
