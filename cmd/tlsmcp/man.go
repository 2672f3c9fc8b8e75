//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// addMan adds the hidden command that writes the man pages. It is built with
// -tags man only, when the packages are made: users have the pages, and the
// program need not carry what writes them.
func addMan(root *cobra.Command) {
	root.AddCommand(&cobra.Command{Use: "man DIR", Short: "Write the man pages", Hidden: true, Args: exactly(1, "the directory"), RunE: func(_ *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return fmt.Errorf("man pages: %w", err)
		}
		root.DisableAutoGenTag = true
		return doc.GenManTree(root, &doc.GenManHeader{Title: "TLSMCP", Section: "1", Source: "tlsmcp", Manual: "tlsmcp"}, args[0])
	}})
}
