package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call of the traced program that touches a file below the
// watched directory, or that writes to its standard output.
type call struct {
	name    string // as in man 2
	file    string // below the watched directory; second name of a rename or a link; printed
	nth     int    // among the calls of this name, from 1
	grows   bool   // needs room on the disk
	changes bool   // fails on a medium that is read-only
	path    string // in full
}

func (c *call) String() string { return fmt.Sprintf("%s#%d(%s)", c.name, c.nth, c.file) }

// printed stands for the file of standard output.
const printed = "stdout"

// act is what is done to a call.
type act struct {
	errno unix.Errno // it fails with this
	half  bool       // of what it writes only the first half is written
	// The process is killed, and the call not made, or made to its end.
	killBefore, killAfter bool
}

// tracer runs a program and decides about each call, however many threads it
// has. strace would be less to write, but counts calls for each thread apart,
// and a Go program moves from one to another; nor can it write a part.
type tracer struct {
	dir  string          // watched; the program is started in it
	deal func(*call) act // asked before each call
	// before looks at a call that is about to be made; what it gives is called
	// if the call succeeds.
	before func(*call) (succeeded func())

	out     string // where standard output goes
	pid     atomic.Int64
	calls   []call
	counts  map[string]int
	threads map[int]*thread
}

// thread is a traced thread; while it is in a call that matters, call is set.
type thread struct {
	call      *call
	act       act
	size      uint64 // of a write that was cut
	succeeded func()
}

const ptraceGetSyscallInfo = 0x420e // ptrace(2)

// syscallInfo is struct ptrace_syscall_info.
type syscallInfo struct {
	op     uint8 // 1 at entry, 2 at exit
	_      [3]uint8
	_      uint32
	_, _   uint64
	number uint64 // at entry; at exit the result
	args   [6]uint64
}

// run runs the program to its end and gives its exit code, -1 if it was killed.
func (tr *tracer) run(environ, args []string, out, log string) (code int, err error) {
	runtime.LockOSThread() // only the thread that began it may trace it
	defer runtime.UnlockOSThread()
	tr.counts, tr.threads, tr.out = map[string]int{}, map[int]*thread{}, out
	pid, err := tr.start(environ, args, out, log)
	if err != nil {
		return 0, err
	}
	tr.pid.Store(int64(pid))
	defer tr.pid.Store(0)
	const endless = 2 * patience // whoever waits for it to do something gives up before
	watchdog := time.AfterFunc(endless, func() { tr.signal(syscall.SIGKILL) })
	defer watchdog.Stop()
	for {
		var status unix.WaitStatus
		// For its process group only: other tests wait for their own children,
		// which this thread may have begun.
		tid, err := unix.Wait4(-pid, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for the traced program: %w", err)
		case status.Stopped():
			if err := tr.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) { // killed meanwhile
				tr.signal(syscall.SIGKILL)
				return 0, fmt.Errorf("tracing: %w", err)
			}
		case tid != pid: // a thread ended
			delete(tr.threads, tid)
		case !watchdog.Stop():
			return 0, fmt.Errorf("the traced program did not end within %s", endless)
		default:
			return status.ExitStatus(), nil
		}
	}
}

// signal sends a signal to the running program.
func (tr *tracer) signal(s syscall.Signal) {
	if pid := int(tr.pid.Load()); pid > 0 {
		_ = syscall.Kill(pid, s) // it may be gone
	}
}

func (tr *tracer) start(environ, args []string, out, log string) (pid int, err error) {
	var files [3]*os.File
	for i, name := range [...]string{os.DevNull, out, log} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		files[i] = f
	}
	pid, err = syscall.ForkExec(args[0], args[1:], &syscall.ProcAttr{
		Dir: tr.dir, Env: environ, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
		Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
	})
	if err != nil {
		return 0, fmt.Errorf("starting a traced program: %w; allow ptrace here (in a container: --cap-add=SYS_PTRACE)", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return 0, err
	}
	tr.threads[pid] = new(thread)
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	return pid, errors.Join(unix.PtraceSetOptions(pid, options), unix.PtraceSyscall(pid, 0))
}

// stopped lets a thread go on after it was stopped for whatever reason.
func (tr *tracer) stopped(tid int, status unix.WaitStatus) error {
	th, signal := tr.threads[tid], status.StopSignal()
	switch {
	case th == nil: // a new thread, which begins with a stop
		tr.threads[tid] = new(thread)
		return unix.PtraceSyscall(tid, 0)
	case signal == syscall.SIGTRAP|0x80:
		if err := tr.between(tid, th); err != nil {
			return err
		}
		return unix.PtraceSyscall(tid, 0)
	case signal == syscall.SIGTRAP: // it made a thread
		return unix.PtraceSyscall(tid, 0)
	}
	return unix.PtraceSyscall(tid, int(signal))
}

// between is called on the way into the kernel and on the way out of it.
func (tr *tracer) between(tid int, th *thread) error {
	var info syscallInfo
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
		return errno
	}
	if info.op == 1 {
		if th.call = tr.read(tid, &info); th.call == nil {
			return nil
		}
		return tr.enter(tid, th)
	}
	if th.call == nil {
		return nil
	}
	defer func() { th.call = nil }()
	return tr.leave(tid, th, int64(info.number))
}

func (tr *tracer) enter(tid int, th *thread) error {
	tr.counts[th.call.name]++
	th.call.nth = tr.counts[th.call.name]
	tr.calls = append(tr.calls, *th.call)
	th.act, th.succeeded = tr.deal(th.call), tr.before(th.call)
	if th.act.killBefore {
		th.act.errno = unix.EINTR // so that it is not made on any account
	}
	if err := change(tid, func(r *unix.PtraceRegs) {
		switch {
		case th.act.errno != 0:
			r.Orig_rax = ^uint64(0) // no such call
		case th.act.half:
			th.size = r.Rdx
			r.Rdx /= 2
		}
	}); err != nil {
		return err
	}
	if th.act.killBefore {
		tr.signal(syscall.SIGKILL)
	}
	return nil
}

func (tr *tracer) leave(tid int, th *thread, result int64) error {
	if result >= 0 && th.act.errno == 0 && th.succeeded != nil {
		th.succeeded()
	}
	if th.act.killAfter {
		tr.signal(syscall.SIGKILL)
	}
	return change(tid, func(r *unix.PtraceRegs) {
		switch {
		case th.act.errno != 0:
			r.Rax = uint64(-int64(th.act.errno))
		case th.act.half:
			r.Rdx = th.size
		}
	})
}

func change(tid int, how func(*unix.PtraceRegs)) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	how(&r)
	return unix.PtraceSetRegs(tid, &r)
}

// shape says what a system call does to the disk, and where it names the file.
type shape struct {
	name string
	open bool // an open file, the first argument
	dir  int  // else the argument with the directory,
	path int  // … and that with the path
	// See call.
	grows, changes bool
}

// here is for calls that start from where the process is.
const here = -1

// shapes are the calls that Go and its SQLite make.
var shapes = map[uint64]shape{
	unix.SYS_WRITE:     {name: "write", open: true, grows: true, changes: true},
	unix.SYS_PWRITE64:  {name: "pwrite64", open: true, grows: true, changes: true},
	unix.SYS_FTRUNCATE: {name: "ftruncate", open: true, grows: true, changes: true},
	unix.SYS_FALLOCATE: {name: "fallocate", open: true, grows: true, changes: true},
	unix.SYS_FSYNC:     {name: "fsync", open: true},
	unix.SYS_FDATASYNC: {name: "fdatasync", open: true},
	unix.SYS_FCHMOD:    {name: "fchmod", open: true, changes: true},
	unix.SYS_FCHOWN:    {name: "fchown", open: true, changes: true},
	unix.SYS_OPEN:      {name: "open", dir: here, path: 0},
	unix.SYS_OPENAT:    {name: "openat", dir: 0, path: 1},
	unix.SYS_MKDIRAT:   {name: "mkdirat", dir: 0, path: 1, grows: true, changes: true},
	unix.SYS_UNLINK:    {name: "unlink", dir: here, path: 0, changes: true},
	unix.SYS_UNLINKAT:  {name: "unlinkat", dir: 0, path: 1, changes: true},
	unix.SYS_LINKAT:    {name: "linkat", dir: 2, path: 3, grows: true, changes: true},
	unix.SYS_RENAMEAT:  {name: "renameat", dir: 2, path: 3, grows: true, changes: true},
	unix.SYS_RENAMEAT2: {name: "renameat2", dir: 2, path: 3, grows: true, changes: true},
	unix.SYS_FCHMODAT:  {name: "fchmodat", dir: 0, path: 1, changes: true},
	unix.SYS_FCHOWNAT:  {name: "fchownat", dir: 0, path: 1, changes: true},
}

// read says what a call is about; nil if it is not watched.
func (tr *tracer) read(tid int, info *syscallInfo) *call {
	s, known := shapes[info.number]
	if !known {
		return nil
	}
	c := &call{name: s.name, grows: s.grows, changes: s.changes}
	switch {
	case s.open:
		c.path = tr.opened(int(info.args[0]))
	case s.dir == here:
		c.path = tr.named(tid, unix.AT_FDCWD, info.args[s.path])
	default:
		c.path = tr.named(tid, int(int32(info.args[s.dir])), info.args[s.path])
	}
	if info.number == unix.SYS_OPEN || info.number == unix.SYS_OPENAT {
		flags := info.args[s.path+1]
		c.grows = flags&unix.O_CREAT != 0
		c.changes = flags&(unix.O_CREAT|unix.O_WRONLY|unix.O_RDWR|unix.O_TRUNC) != 0
	}
	if !tr.watched(c) {
		return nil
	}
	return c
}

// watched says whether a call is one that counts, and names its file.
func (tr *tracer) watched(c *call) bool {
	if c.path == tr.out {
		c.file = printed
		return true
	}
	below, err := filepath.Rel(tr.dir, c.path)
	c.file = below
	return err == nil && c.path != "" && !strings.HasPrefix(below, "..")
}

// opened is the path of an open file.
func (tr *tracer) opened(fd int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.pid.Load(), fd))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// named is the path that a call names.
func (tr *tracer) named(tid, dir int, at uint64) string {
	var b [unix.PathMax]byte
	n := 0
	for n < len(b) && !bytes.Contains(b[:n], []byte{0}) { // page by page: the next one need not be there
		room := min(len(b)-n, 4096-int((at+uint64(n))%4096))
		local := []unix.Iovec{{Base: &b[n], Len: uint64(room)}}
		got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at) + uintptr(n), Len: room}}, 0)
		if err != nil || got == 0 {
			return ""
		}
		n += got
	}
	path, _, ok := strings.Cut(string(b[:n]), "\x00")
	switch {
	case !ok || path == "":
		return ""
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	case dir == unix.AT_FDCWD:
		return filepath.Join(tr.dir, path) // where it was started
	}
	return filepath.Join(tr.opened(dir), path)
}
