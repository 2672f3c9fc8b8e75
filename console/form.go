package console

import (
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"cyphers.ai/tlsmcp/console/widget"
	"cyphers.ai/tlsmcp/pkg/text"
)

// form asks for the values of an order.
type form struct {
	title, intro string
	fields       []Field
	inputs       []*prompt // nil where there are choices
	at           int       // len(fields): the button
	top          int       // first field that is seen
	fault        string
	order        func(Args) Order
	local        func(m *Model, a Args) tea.Cmd // instead of an order
}

func newForm(title, intro string, fields []Field, order func(Args) Order) *form {
	f := &form{title: title, intro: intro, fields: slices.Clone(fields), order: order}
	f.inputs = make([]*prompt, len(fields))
	for i := range f.fields {
		d := &f.fields[i]
		if d.Switch {
			d.Choices = []string{"no", "yes"}
		}
		if len(d.Choices) == 0 {
			f.inputs[i] = newPrompt(d.Value)
		} else if !slices.Contains(d.Choices, d.Value) {
			d.Value = d.Choices[0]
		}
	}
	return f
}

func (f *form) changed(*Model) {}

func (f *form) value(i int) string {
	if f.inputs[i] != nil {
		return strings.TrimSpace(f.inputs[i].value())
	}
	return f.fields[i].Value
}

func (f *form) update(m *Model, msg tea.Msg) tea.Cmd {
	k, ok := msg.(tea.KeyMsg)
	if !ok {
		return nil
	}
	n := len(f.fields) + 1
	switch k.String() {
	case "esc":
		m.overlay = nil
		return nil
	case "down", "tab":
		f.at = (f.at + 1) % n
		return nil
	case "up", "shift+tab":
		f.at = (f.at + n - 1) % n
		return nil
	case "enter":
		if f.at == len(f.fields) {
			return f.submit(m)
		}
		f.at++
		return nil
	case "ctrl+s":
		return f.submit(m)
	}
	f.fault = ""
	if f.at == len(f.fields) {
		return nil
	}
	if f.inputs[f.at] != nil {
		return f.inputs[f.at].update(k)
	}
	f.choose(k.String())
	return nil
}

// choose moves through the choices: by arrows, by space, or by first letter.
func (f *form) choose(k string) {
	d := &f.fields[f.at]
	i, c := slices.Index(d.Choices, d.Value), len(d.Choices)
	switch k {
	case "right", "l", " ":
		d.Value = d.Choices[(i+1)%c]
	case "left", "h":
		d.Value = d.Choices[(i+c-1)%c]
	default:
		if j := slices.IndexFunc(d.Choices, func(v string) bool { return strings.HasPrefix(v, k) }); k != "" && j >= 0 {
			d.Value = d.Choices[j]
		}
	}
}

func (f *form) submit(m *Model) tea.Cmd {
	args := Args{}
	for i, d := range f.fields {
		args[d.Name] = f.value(i)
		if d.Required && args[d.Name] == "" {
			f.fault, f.at = d.Name+" is missing", i
			return nil
		}
	}
	m.overlay = nil
	if f.local != nil {
		return f.local(m, args)
	}
	if why := m.readOnly(); why != "" {
		m.say(true, why)
		return nil
	}
	m.say(false, f.title+m.look.Glyphs.More)
	return m.do(f.order(args))
}

func (f *form) view(m *Model, w, h int) []string {
	l := m.look
	width := min(w-4, 72)
	inner := width - 4
	var lines []string
	for _, part := range widget.Wrap(text.Clean(f.intro), inner) {
		lines = append(lines, l.Dim.Paint(part))
	}
	lines = append(lines, "")
	rows := max(min(len(f.fields), h-len(lines)-6), 1)
	f.top = widget.Scroll(f.top, min(f.at, len(f.fields)-1), len(f.fields), rows)
	for i := f.top; i < min(f.top+rows, len(f.fields)); i++ {
		lines = append(lines, f.line(l, i, inner))
	}
	help := ""
	if f.at < len(f.fields) {
		help = f.fields[f.at].Help
	}
	note := l.Dim.Paint(widget.Cut(text.Line(help), inner, l.Glyphs.More))
	if f.fault != "" {
		note = l.Bad.Paint(widget.Cut(f.fault, inner, l.Glyphs.More))
	}
	button := l.Text.Paint("[ do it ]")
	if f.at == len(f.fields) {
		button = l.Tab.Paint("[ do it ]")
	}
	lines = append(lines, "", note, widget.Sides(button, l.Dim.Paint("tab next  esc cancels"), inner, l.Glyphs.More))
	return l.Box(f.title, "", lines, width, len(lines)+2, true)
}

func (f *form) line(l *widget.Look, i, w int) string {
	d := f.fields[i]
	lead, name := " ", l.Text
	if i == f.at {
		lead, name = l.Glyphs.Pointer, l.Strong
	}
	label := d.Name
	if d.Required {
		label += " *"
	}
	head := l.Accent.Paint(lead) + " " + name.Paint(widget.Fit(label, 14, l.Glyphs.More)) + " "
	room := w - 17
	if f.inputs[i] != nil {
		if i == f.at {
			return head + f.inputs[i].view(l, room)
		}
		return head + l.Text.Paint(widget.Cut(text.Clean(f.inputs[i].value()), room, l.Glyphs.More))
	}
	if i == f.at {
		return head + l.Key.Paint("< ") + l.Strong.Paint(d.Value) + l.Key.Paint(" >")
	}
	return head + l.Text.Paint("  "+d.Value)
}
