package widget

// Column of a table. A width of zero takes what the others leave; Weight shares
// that out.
type Column struct {
	Head   string
	Width  int
	Weight int  // of columns without a width; 0 counts as 1
	Right  bool // at the right
	Least  int  // the table's width below which the column is left out; 0: never
}

// Cell is a text and its style.
type Cell struct {
	Text  string
	Style Style
}

// Row is a line of a table.
type Row struct {
	Cells  []Cell
	Marked bool
	Dim    bool // as a whole: the data is old
}

// Table is a list of which a window is shown. Rows are asked for by number, and
// only those that are seen: ten thousand cost no more than twenty.
type Table struct {
	Columns []Column
	Len     int
	Row     func(i int) Row
	Cursor  int // negative: none
	Top     int // the first row that is seen
	Focus   bool
	NoHead  bool
}

// Lines draws the table at w by h cells.
func (t *Table) Lines(l *Look, w, h int) []string {
	if w <= 4 || h <= 0 {
		return nil
	}
	widths := t.widths(w)
	var out []string
	rows := h
	if !t.NoHead {
		out = append(out, l.Dim.Paint(t.head(l, widths)))
		rows--
	}
	for i := t.Top; i < min(t.Top+rows, t.Len); i++ {
		out = append(out, t.line(l, widths, i, w))
	}
	return out
}

// widths gives each column its width; 0: it is left out.
func (t *Table) widths(w int) []int {
	widths := make([]int, len(t.Columns))
	room, weights := w-2, 0 // the pointer and its space
	for i, c := range t.Columns {
		if c.Least > 0 && w < c.Least {
			widths[i] = -1
			continue
		}
		room--
		if c.Width > 0 {
			widths[i] = c.Width
			room -= c.Width
		} else {
			weights += max(c.Weight, 1)
		}
	}
	room++ // no space after the last one
	for i, c := range t.Columns {
		switch {
		case widths[i] < 0:
			widths[i] = 0
		case c.Width == 0 && weights > 0:
			share := max(room, 0) * max(c.Weight, 1) / weights
			widths[i] = share
			room -= share
			weights -= max(c.Weight, 1)
		}
	}
	return widths
}

func (t *Table) head(l *Look, widths []int) string {
	text := "  "
	for i, c := range t.Columns {
		text += t.cell(l, c.Head, widths[i], i)
	}
	return text
}

// cell makes a text as wide as its column, with the space before it.
func (t *Table) cell(l *Look, text string, w, i int) string {
	if w <= 0 {
		return ""
	}
	sep := " "
	if i == 0 {
		sep = ""
	}
	if t.Columns[i].Right {
		return sep + FitRight(text, w, l.Glyphs.More)
	}
	return sep + Fit(text, w, l.Glyphs.More)
}

func (t *Table) line(l *Look, widths []int, i, w int) string {
	row := t.Row(i)
	selected := i == t.Cursor
	ground := Style("")
	if selected && t.Focus {
		ground = l.Selected
	}
	lead := " "
	switch {
	case row.Marked:
		lead = l.Glyphs.Mark
	case selected:
		lead = l.Glyphs.Pointer
	}
	on := func(s Style) Style { return s.On(ground) }
	if ground != "" && l.Whole {
		on = func(Style) Style { return ground }
	}
	text := on(l.Accent).Paint(lead + " ")
	used := 2
	for j, c := range row.Cells {
		part := t.cell(l, c.Text, widths[j], j)
		style := c.Style
		if row.Dim {
			style = l.Dim
		}
		text += on(style).Paint(part)
		used += Width(part)
	}
	return text + ground.Paint(Space(w-used))
}

// Scroll moves a window of h rows so that the cursor is in it.
func Scroll(top, cursor, length, h int) int {
	if cursor >= 0 {
		if cursor < top {
			top = cursor
		}
		if cursor >= top+h {
			top = cursor - h + 1
		}
	}
	return max(0, min(top, length-h))
}
