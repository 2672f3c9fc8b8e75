//go:build unix

package main

import (
	"os"
	"syscall"
)

// ownLike gives files the owner of a directory, when this is root and the owner
// another.
func ownLike(dir string, files ...string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Getuid() != 0 {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	for _, f := range files {
		if err := os.Lchown(f, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return nil
}
