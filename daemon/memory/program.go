package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// span is a part of the address space.
type span struct{ from, to uintptr }

// forgetStart unmaps what has been mapped of the program's own file so far: code
// and constants, which nobody writes. To start, a program touches most of itself,
// and the kernel maps sixteen pages for each that is touched. What is needed
// further on comes back from the page cache, at a few microseconds for each
// sixteen pages; the rest is then the first that the kernel can use otherwise.
func forgetStart() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	spans, err := untouched(f, program)
	if err != nil {
		return fmt.Errorf("read /proc/self/smaps: %w", err)
	}
	for _, s := range spans {
		if _, _, err := unix.Syscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED); err != 0 {
			return os.NewSyscallError("madvise", err)
		}
	}
	return nil
}

// untouched finds the mappings of a file, in the form of smaps, that are as the
// file is and stay so. A debugger or a probe may have written to code all the same:
// where a single page is not the file's, the mapping is left alone.
func untouched(smaps io.Reader, file string) ([]span, error) {
	var found []span
	var at span
	candidate := false
	s := bufio.NewScanner(smaps)
	for s.Scan() {
		// 00400000-00a78000 r-xp 00000000 fe:00 1234    /usr/bin/tlsmcpd
		// Anonymous:             0 kB
		head, rest, _ := bytes.Cut(s.Bytes(), []byte(" "))
		if from, to, ok := bytes.Cut(head, []byte("-")); ok {
			f := bytes.Fields(rest)
			candidate = len(f) == 5 && string(f[4]) == file && f[0][0] == 'r' && f[0][1] == '-'
			if !candidate {
				continue
			}
			a, errA := strconv.ParseUint(string(from), 16, 64)
			b, errB := strconv.ParseUint(string(to), 16, 64)
			if errA != nil || errB != nil {
				return nil, fmt.Errorf("%q is no range", head)
			}
			at = span{uintptr(a), uintptr(b)}
			continue
		}
		if candidate && string(head) == "Anonymous:" && string(bytes.TrimSpace(rest)) == "0 kB" {
			found = append(found, at)
		}
	}
	return found, s.Err()
}
