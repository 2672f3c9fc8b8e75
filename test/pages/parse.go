package pages

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Misspelled looks for the command lines of a program in the pages of the project in
// dir and in its CHANGELOG, in blocks and in sentences, and gives those whose command
// or flags there are not, and how many it looked at. Each line has a command tree of
// its own, because flags keep what they were set to.
func Misspelled(dir string, tree func() *cobra.Command) (faults []string, checked int, err error) {
	all, err := Load(dir)
	if err != nil {
		return nil, 0, err
	}
	changes, err := Read(dir, "CHANGELOG.md")
	if err != nil {
		return nil, 0, err
	}
	name := tree().Name()
	for _, p := range append(all, changes) {
		for _, s := range p.lines() {
			for _, line := range lines(s.Text, name) {
				checked++
				if err := parses(tree(), line); err != nil {
					faults = append(faults, fmt.Sprintf("%s:%d: %s: %v", p.Path, s.Line, strings.Join(append([]string{name}, line...), " "), err))
				}
			}
		}
	}
	return faults, checked, nil
}

// lines are the page's command lines and code.
func (p Page) lines() []Span {
	all := p.Code()
	for _, b := range p.Blocks() {
		for _, c := range b.Commands() {
			all = append(all, Span{b.Line, c})
		}
	}
	for _, b := range p.Blocks() {
		if b.Language == "json" {
			for _, c := range started(b.Text()) {
				all = append(all, Span{b.Line, c})
			}
		}
	}
	return all
}

// started are the command lines in a client's configuration: what has a command and
// arguments.
func started(text string) (all []string) {
	var node any
	if json.Unmarshal([]byte(text), &node) != nil {
		return nil
	}
	var walk func(any)
	walk = func(node any) {
		object, _ := node.(map[string]any)
		if command, ok := object["command"].(string); ok {
			line := command
			args, _ := object["args"].([]any)
			for _, a := range args {
				line += fmt.Sprintf(" '%v'", a)
			}
			all = append(all, line)
		}
		for _, inner := range object {
			walk(inner)
		}
	}
	walk(node)
	return all
}

var (
	inner = regexp.MustCompile(`\$\(([^)]*)\)`)
	word  = regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
	quote = strings.NewReplacer(`"`, "", `'`, "", "[", "", "]", "")
	end   = regexp.MustCompile(`^(\||;|&&|>|<|2>).*`)
)

// before is what stands before a program's name in a line that starts it.
var before = regexp.MustCompile(`^(\||&&|.*;|sudo|HOST)$`)

// lines are the argument lists with which text, a command line of a shell's, starts
// the program: there may be several, with pipes between them, or one in another.
func lines(text, program string) (all [][]string) {
	for _, m := range inner.FindAllStringSubmatch(text, -1) {
		all = append(all, lines(m[1], program)...)
	}
	words := word.FindAllString(inner.ReplaceAllString(text, "INNER"), -1)
	for i, w := range words {
		if filepath.Base(w) == program && (i == 0 || before.MatchString(words[i-1])) {
			all = append(all, arguments(words[i+1:]))
		}
	}
	return all
}

// arguments are the words up to the end of the command.
func arguments(words []string) (args []string) {
	for _, w := range words {
		if end.MatchString(w) {
			break
		}
		w, last := strings.CutSuffix(w, ";")
		args = append(args, quote.Replace(w))
		if last {
			break
		}
	}
	return args
}

// parses says whether the command is there and takes these flags. Without arguments a
// line may only name the command, and they are not asked for.
func parses(root *cobra.Command, args []string) error {
	if len(args) == 1 && slices.Contains([]string{"--help", "--version"}, args[0]) {
		return nil
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	given := cmd.Flags().Args()
	if len(given) == 0 {
		return nil
	}
	if cmd.HasSubCommands() && !cmd.HasAvailableFlags() || cmd == root {
		return fmt.Errorf("there is no command %q of %s", given[0], cmd.CommandPath())
	}
	return cmd.ValidateArgs(given)
}
