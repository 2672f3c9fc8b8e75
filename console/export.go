package console

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/pkg/text"
)

// sheet is the list of the screen, as it is filtered and sorted.
func (m *Model) sheet() sheet {
	switch m.screen {
	case scrFeed:
		return m.feed.sheet(m)
	case scrAgents:
		return m.agents.sheet(m)
	case scrScore:
		return m.score.sheet(m)
	case scrLog:
		return m.log.sheet(m)
	}
	return m.certs.sheet(m)
}

func (m *Model) askExport() tea.Cmd {
	s := m.sheet()
	name := fmt.Sprintf("tlsmcp-%s-%s.csv", s.name, m.Now().Local().Format("20060102-150405"))
	f := newForm("Export", fmt.Sprintf("The list %s, %s, goes to a file.", s.name, text.Plural(len(s.rows), "row")),
		[]Field{{Name: "file", Value: name, Help: "the end of its name says how: .csv, .json (an object on each line) or .txt", Required: true}}, nil)
	f.local = func(m *Model, a Args) tea.Cmd {
		return func() tea.Msg {
			err := s.write(a["file"])
			return wroteMsg{fmt.Sprintf("%s written to %s", text.Plural(len(s.rows), "row"), a["file"]), err}
		}
	}
	m.overlay = f
	return nil
}

// write makes a new file. One that is there is left as it is.
func (s sheet) write(path string) (err error) {
	encode := map[string]func(io.Writer) error{".csv": s.csv, ".json": s.json, ".txt": s.text}[filepath.Ext(path)]
	if encode == nil {
		return fmt.Errorf("export: %q does not end in .csv, .json or .txt", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	return encode(f)
}

// csv writes a table that spreadsheets read. What would be a formula to them is
// a text.
func (s sheet) csv(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(s.head); err != nil {
		return err
	}
	for _, row := range s.rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				cell = "'" + cell
			}
			safe[i] = cell
		}
		if err := c.Write(safe); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func (s sheet) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, row := range s.rows {
		object := make(map[string]string, len(row))
		for i, cell := range row {
			object[s.head[i]] = cell
		}
		if err := enc.Encode(object); err != nil {
			return err
		}
	}
	return nil
}

func (s sheet) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{s.head}, s.rows...) {
		clean := make([]string, len(row))
		for i, cell := range row {
			clean[i] = text.Line(cell)
		}
		fmt.Fprintln(t, strings.Join(clean, "\t"))
	}
	return t.Flush()
}
