package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"immuaudit/internal/cli"
)

var distPlatforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"windows", "amd64"}, {"darwin", "arm64"}, {"freebsd", "amd64"}}

// buildArchives writes an archive for each platform: the program, how to use
// and to configure it, and what is in it.
func buildArchives(src source, out string) error {
	work, err := os.MkdirTemp("", "dist")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	common, err := src.papers()
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, p := range distPlatforms {
		file := filepath.Join(work, p.os+"-"+p.arch)
		if err := src.build(p, file); err != nil {
			return err
		}
		bill, err := src.sbom(p, file)
		if err != nil {
			return err
		}
		binary, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("immuclient-%s-%s-%s", src.version, p.os, p.arch)
		entries := []entry{
			{name: name + "/" + p.program(), mode: 0o755, body: binary},
			{name: name + "/immuclient.spdx.json", mode: 0o644, body: bill},
		}
		for _, e := range common {
			e.name = name + "/" + e.name
			entries = append(entries, e)
		}
		packed, err := src.pack(p, entries)
		if err != nil {
			return err
		}
		archive := name + ".tar.gz"
		if p.os == "windows" {
			archive = name + ".zip"
		}
		if err := os.WriteFile(filepath.Join(out, archive), packed, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(packed), archive)
	}
	fmt.Print(sums.String())
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), sums.Bytes(), 0o644)
}

func (src source) pack(p platform, entries []entry) ([]byte, error) {
	if p.os == "windows" {
		return zipOf(entries, src.time)
	}
	packed, err := tarOf(entries, src.time)
	if err != nil {
		return nil, err
	}
	return gzipOf(packed)
}

// papers are what every archive holds beside the program.
func (src source) papers() ([]entry, error) {
	var all []entry
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/operations.md", "docs/alerts.md", "docs/configuration.md", "docs/status-page.md", "docs/report.md", "deploy/immuclient.toml", "deploy/systemd/immuclient.service", "deploy/prometheus/immuaudit.rules.yml", "deploy/grafana/immuaudit.json"} {
		body, err := os.ReadFile(filepath.Join(src.root, name))
		if err != nil {
			return nil, err
		}
		all = append(all, entry{name: filepath.Base(name), mode: 0o644, body: body})
	}
	pages, err := src.manPages()
	if err != nil {
		return nil, err
	}
	completions, err := completions()
	return append(append(all, pages...), completions...), err
}

// manPages has a page for each command.
func (src source) manPages() ([]entry, error) {
	var pages []entry
	err := cli.Reference(func(cmd *cobra.Command) error {
		cmd.DisableAutoGenTag = true
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		header := &doc.GenManHeader{
			Title: strings.ToUpper(name), Section: "1", Date: &src.time, Source: "immuaudit " + src.version, Manual: "immuaudit",
		}
		var page bytes.Buffer
		if err := doc.GenMan(cmd, header, &page); err != nil {
			return err
		}
		pages = append(pages, entry{name: "man/man1/" + name + ".1", mode: 0o644, body: page.Bytes()})
		return nil
	})
	return pages, err
}

func completions() ([]entry, error) {
	var all []entry
	err := cli.Reference(func(cmd *cobra.Command) error {
		if cmd.HasParent() {
			return nil
		}
		for _, shell := range []struct {
			name  string
			write func(io.Writer) error
		}{
			{"immuclient.bash", func(w io.Writer) error { return cmd.GenBashCompletionV2(w, true) }},
			{"_immuclient", cmd.GenZshCompletion},
			{"immuclient.fish", func(w io.Writer) error { return cmd.GenFishCompletion(w, true) }},
			{"immuclient.ps1", cmd.GenPowerShellCompletionWithDesc},
		} {
			var script bytes.Buffer
			if err := shell.write(&script); err != nil {
				return err
			}
			all = append(all, entry{name: "completions/" + shell.name, mode: 0o644, body: script.Bytes()})
		}
		return nil
	})
	return all, err
}
