// Package schema holds the protobuf messages and gRPC stubs of the part of
// immudb's interface that immuaudit speaks: the .proto file and what is
// generated from it, nothing else.
//
// To generate anew: protoc 3.21 or later and the two plugins
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//
// on the PATH, then go generate ./internal/wire/schema.
package schema

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative immudb.proto
