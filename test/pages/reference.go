package pages

import (
	"bytes"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Reference is a program's command line as a page: each command with its help, as
// cobra writes it, less what belongs to a site of one file for each command.
func Reference(cmd *cobra.Command) (string, error) {
	if cmd.Hidden || cmd.Name() == "help" {
		return "", nil
	}
	cmd.DisableAutoGenTag = true
	var page bytes.Buffer
	if err := doc.GenMarkdownCustom(cmd, &page, func(string) string { return "" }); err != nil {
		return "", err
	}
	text, _, _ := strings.Cut(page.String(), "### SEE ALSO")
	text = strings.NewReplacer("### Options inherited from parent commands", "Also, of the group:",
		"### Options", "Options:", "### Examples", "For example:", "### Synopsis\n\n", "").Replace(text)
	text = "\n" + strings.TrimSpace(fenced(text)) + "\n"
	for _, sub := range cmd.Commands() {
		of, err := Reference(sub)
		if err != nil {
			return "", err
		}
		text += of
	}
	return text, nil
}

// fenced has each fence say what it holds. Examples lose what cobra indents them by
// for a terminal.
func fenced(text string) string {
	lines := slices.Collect(strings.Lines(text))
	var out strings.Builder
	open, shell := false, false
	for i, line := range lines {
		switch {
		case line == "```\n" && !open:
			open, shell = true, i+1 < len(lines) && LooksTyped(strings.TrimSpace(lines[i+1]))
			line = "```text\n"
			if shell {
				line = "```sh\n"
			}
		case line == "```\n":
			open = false
		case open && shell:
			line = strings.TrimPrefix(line, "  ")
		}
		out.WriteString(line)
	}
	return out.String()
}
