package audit_test

import (
	"math/rand/v2"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mutate changes one thing somewhere in a message: a bit, a length, a number,
// the order or the number of elements, or whether something is there at all.
func mutate(rnd *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	f := fields.Get(rnd.IntN(fields.Len()))
	for range 8 { // rather something that is there
		if m.Has(f) {
			break
		}
		f = fields.Get(rnd.IntN(fields.Len()))
	}
	switch {
	case rnd.IntN(12) == 0:
		m.Clear(f)
	case f.IsMap():
	case f.IsList():
		mutateList(rnd, m, f)
	case f.Message() != nil:
		mutate(rnd, m.Mutable(f).Message())
	default:
		m.Set(f, mutated(rnd, f, m.Get(f)))
	}
}

func mutateList(rnd *rand.Rand, m protoreflect.Message, f protoreflect.FieldDescriptor) {
	l := m.Mutable(f).List()
	n := l.Len()
	if n == 0 {
		l.Append(l.NewElement())
		return
	}
	i, j := rnd.IntN(n), rnd.IntN(n)
	switch rnd.IntN(6) {
	case 0:
		l.Truncate(i)
	case 1:
		l.Append(l.Get(i))
	case 2: // swapped
		x, y := l.Get(i), l.Get(j)
		if f.Message() == nil {
			l.Set(i, y)
			l.Set(j, x)
		} else {
			cx, cy := proto.Clone(x.Message().Interface()), proto.Clone(y.Message().Interface())
			l.Set(i, protoreflect.ValueOfMessage(cy.ProtoReflect()))
			l.Set(j, protoreflect.ValueOfMessage(cx.ProtoReflect()))
		}
	case 3: // one is left out
		for k := i; k+1 < n; k++ {
			l.Set(k, l.Get(k+1))
		}
		l.Truncate(n - 1)
	default:
		if f.Message() != nil {
			mutate(rnd, l.Get(i).Message())
		} else {
			l.Set(i, mutated(rnd, f, l.Get(i)))
		}
	}
}

func mutated(rnd *rand.Rand, f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	huge := []uint64{0, 1, 2, 1 << 31, 1<<32 - 1, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1}[rnd.IntN(9)]
	near := uint64(rnd.IntN(5)) - 2
	switch f.Kind() {
	case protoreflect.BytesKind:
		b := append([]byte(nil), v.Bytes()...)
		switch {
		case len(b) == 0 || rnd.IntN(8) == 0:
			b = append(b, byte(rnd.IntN(256)))
		case rnd.IntN(8) == 0:
			b = b[:rnd.IntN(len(b))]
		default:
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		return protoreflect.ValueOfBytes(b)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "one", "two", v.String() + "x", "\u202e"}[rnd.IntN(5)])
	case protoreflect.Uint64Kind:
		if rnd.IntN(2) == 0 {
			return protoreflect.ValueOfUint64(v.Uint() + near)
		}
		return protoreflect.ValueOfUint64(huge)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(huge + near))
	case protoreflect.Int32Kind:
		if rnd.IntN(2) == 0 {
			return protoreflect.ValueOfInt32(int32(v.Int()) + int32(near))
		}
		return protoreflect.ValueOfInt32(int32(uint32(huge)))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	}
	return v
}
