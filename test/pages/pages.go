// Package pages reads the documentation for the tests that hold it to the
// programs: which pages there are, the blocks between their fences, the commands
// in those, the code in their sentences, their links and headings.
//
// It knows as much of Markdown as the pages use.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Page is one file.
type Page struct {
	Name  string // "README", "mcp"
	Path  string // from the project's directory: "docs/mcp.md"
	Lines []string
}

// Load reads README.md and every page of docs of the project in dir, in the order
// of their names.
func Load(dir string) ([]Page, error) {
	files, err := filepath.Glob(filepath.Join(dir, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("pages of %s: there are none (%v)", dir, err)
	}
	var all []Page
	for _, file := range append([]string{"README.md"}, files...) {
		p, err := Read(dir, strings.TrimPrefix(file, filepath.Clean(dir)+string(filepath.Separator)))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Read reads one page, by its path from dir.
func Read(dir, path string) (Page, error) {
	text, err := os.ReadFile(filepath.Join(dir, path))
	return New(path, string(text)), err
}

// New is a page with that text.
func New(path, text string) Page {
	return Page{strings.TrimSuffix(filepath.Base(path), ".md"), path, strings.Split(text, "\n")}
}

// Block is what stands between two fences.
type Block struct {
	Line     int    // of the first fence, from 1
	Language string // what the fence says; "" when it says nothing
	Lines    []string
}

// Text is the block's.
func (b Block) Text() string { return strings.Join(b.Lines, "\n") + "\n" }

// IsShell says whether the block holds commands.
func (b Block) IsShell() bool { return slices.Contains([]string{"sh", "bash", "console"}, b.Language) }

// Blocks are the page's, without the indentation that a list gives them.
func (p Page) Blocks() []Block {
	blocks, _ := p.split()
	return blocks
}

// split gives the blocks, and the lines outside of them; a line of a block is
// empty there, so that numbers stay.
func (p Page) split() (blocks []Block, rest []string) {
	rest = make([]string, len(p.Lines))
	indent, open := 0, false
	for i, line := range p.Lines {
		trimmed := strings.TrimLeft(line, " ")
		language, fence := strings.CutPrefix(trimmed, "```")
		switch {
		case fence && !open:
			indent, open = len(line)-len(trimmed), true
			blocks = append(blocks, Block{Line: i + 1, Language: strings.TrimSpace(language)})
		case fence:
			open = false
		case open:
			b := &blocks[len(blocks)-1]
			b.Lines = append(b.Lines, line[min(indent, len(line)-len(trimmed)):])
		default:
			rest[i] = line
		}
	}
	return blocks, rest
}

var comment = regexp.MustCompile(`\s+# .*$`)

// Commands are those of a block of commands, one string each: lines that go on are
// joined, and comments left out. In a console block they begin with "$ ".
func (b Block) Commands() (all []string) {
	if !b.IsShell() {
		return nil
	}
	for line := range strings.Lines(strings.ReplaceAll(b.Text(), "\\\n", "")) {
		line = strings.TrimSpace(line)
		if b.Language == "console" {
			var typed bool
			if line, typed = strings.CutPrefix(line, "$ "); !typed {
				continue
			}
		}
		line = comment.ReplaceAllString(line, "")
		if line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return all
}

// Commands are those of all of the page's blocks.
func (p Page) Commands() (all []string) {
	for _, b := range p.Blocks() {
		all = append(all, b.Commands()...)
	}
	return all
}

var (
	typed   = regexp.MustCompile(`^\s*(\$ \S|(sudo )?(tlsmcp|tlsmcp-hub|tlsmcpd|curl|systemctl|journalctl|apt-get|docker|kubectl|ssh|promtool) \S|\./task\b)`)
	picture = regexp.MustCompile(`[─│┌┐└┘┬┴▲▼◄►═]`)
)

// LooksTyped says whether a line is one that a person would type. A line of a
// picture is none, and neither is a synopsis, "tlsmcp status [flags]".
func LooksTyped(line string) bool {
	return typed.MatchString(line) && !picture.MatchString(line) && !strings.Contains(line, " [flags]")
}

// Span is something in a sentence, and where.
type Span struct {
	Line int
	Text string
}

var code = regexp.MustCompile("(?s)`([^`]+)`")

// Code is what stands between backquotes in the page's sentences. It may begin on
// one line and end on the next.
func (p Page) Code() (all []Span) {
	_, rest := p.split()
	text := strings.Join(rest, "\n")
	for _, m := range code.FindAllStringSubmatchIndex(text, -1) {
		all = append(all, Span{1 + strings.Count(text[:m[0]], "\n"), strings.Join(strings.Fields(text[m[2]:m[3]]), " ")})
	}
	return all
}

var link = regexp.MustCompile(`(?s)\]\(([^()\s]+)\)`)

// Links are the targets of the page's links and pictures.
func (p Page) Links() (all []Span) {
	_, rest := p.split()
	text := code.ReplaceAllStringFunc(strings.Join(rest, "\n"), func(s string) string {
		return strings.Repeat("\n", strings.Count(s, "\n"))
	})
	for i, line := range strings.Split(text, "\n") {
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			all = append(all, Span{i + 1, m[1]})
		}
	}
	return all
}

var (
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// Anchors are the names by which links reach the page's headings, as GitHub makes
// them: in small letters, dashes for spaces, and without other signs; the second of
// the same name ends in -1.
func (p Page) Anchors() (all []string) {
	_, rest := p.split()
	seen := map[string]int{}
	for _, line := range rest {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		n := seen[name]
		seen[name]++
		if n > 0 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		all = append(all, name)
	}
	return all
}
