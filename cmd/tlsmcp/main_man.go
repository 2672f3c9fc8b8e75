//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"
)

// Built with the tag man, the program writes its manual pages into a directory:
// the package's build does that, and the program that is shipped has no part of
// it. The date of the pages is SOURCE_DATE_EPOCH.
func main() {
	header := &doc.GenManHeader{Section: "1", Source: "tlsmcp", Manual: "tlsmcp"}
	root := newRoot(stdio{os.Stdin, os.Stdout, os.Stderr})
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, header, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
