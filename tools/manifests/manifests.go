// Package manifests holds tests of deploy/: what is handed to Kubernetes and
// Docker is decoded as strictly as it can be, because both ignore a misspelt
// key, and with it the protection that somebody believes to have.
package manifests
