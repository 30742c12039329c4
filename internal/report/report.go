// Package report writes what an auditor can say about a span of time: one page
// for people, signed by the auditor.
package report
