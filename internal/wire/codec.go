package wire

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// errElements is an answer within the byte limit that would take far more
// memory than that.
var errElements = fmt.Errorf("more than %d elements", maxElements)

// answer is what a call decodes into. It keeps why decoding failed, which gRPC
// would flatten into a text that a server could write as well.
type answer struct {
	message proto.Message
	size    int
	err     error
}

// codec is protobuf with the elements of an answer counted before any of them
// is allocated.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("cannot encode a %T", v)
	}
	data, err := proto.Marshal(message)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("cannot decode into a %T", v)
	}
	if l, ok := a.message.(*listing); ok {
		a.size = data.Len()
		l.keep(data)
		return nil
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	text := buffer.ReadOnlyData()
	a.size = len(text)
	a.err = decode(text, a.message)
	return nil
}

func decode(text []byte, into proto.Message) error {
	left := maxElements
	if err := count(text, into.ProtoReflect().Descriptor(), &left); err != nil {
		return err
	}
	return proto.Unmarshal(text, into)
}

// count walks over an encoded message without building it and takes every
// submessage and every element of a list off what is left. The schema is not
// recursive, so neither deep nesting nor unknown fields lead anywhere.
func count(text []byte, as protoreflect.MessageDescriptor, left *int) error {
	fields := as.Fields()
	for len(text) > 0 {
		number, kind, n := protowire.ConsumeTag(text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		text = text[n:]
		n = protowire.ConsumeFieldValue(number, kind, text)
		if n < 0 {
			return protowire.ParseError(n)
		}
		field := fields.ByNumber(number)
		if field != nil && (field.Message() != nil || field.Cardinality() == protoreflect.Repeated) {
			if *left--; *left < 0 {
				return errElements
			}
		}
		if field != nil && field.Message() != nil && kind == protowire.BytesType {
			inner, m := protowire.ConsumeBytes(text)
			if m < 0 {
				return protowire.ParseError(m)
			}
			if err := count(inner, field.Message(), left); err != nil {
				return err
			}
		}
		text = text[n:]
	}
	return nil
}

func tooManyElements(err error) bool { return errors.Is(err, errElements) }
