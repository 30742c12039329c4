// Package bench holds the benchmarks that take the auditor as it is handed out,
// in a process of its own beside a server: what it costs is read from the
// kernel, and nothing of the server is in it. What one package costs alone is
// measured beside that package; docs/performance.md tells all of it.
package bench
