package widget

import (
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Style is how a text is drawn: the parameters of one SGR sequence. The empty
// one draws it as it is.
type Style string

// Paint draws a text.
func (s Style) Paint(text string) string {
	if s == "" || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// On is the style on the ground of another one, such as a row that is selected.
func (s Style) On(ground Style) Style {
	if s == "" || ground == "" {
		return s + ground
	}
	return s + ";" + ground
}

// Look is everything that a theme and a set of glyphs decide.
type Look struct {
	Theme  string // dark | light | colour-blind | mono
	Glyphs Glyphs

	Text, Dim, Strong     Style
	Good, Warn, Bad, Info Style
	Accent, Title, Border Style
	Focus                 Style // border and title of what has the keys
	Selected              Style // ground of the selected row
	Whole                 bool  // the selected row has that style alone: cells of their own could not be read on it
	Tab                   Style // the screen that is shown
	Banner, Toast, Danger Style // grounds of a line
	Key                   Style // a key in the footer
	GaugeRest             Style
	Wave                  Style // of sparklines
}

// Themes are the names of the themes, in the order of the key that changes them.
func Themes() []string { return []string{"dark", "light", "colour-blind", "mono"} }

// NextTheme is the theme after one.
func NextTheme(name string) string {
	all := Themes()
	return all[(slices.Index(all, name)+1)%len(all)]
}

// colours of a theme, as lipgloss takes them.
type colours struct {
	text, dim, good, warn, bad, info, accent, border, selected, tabText, tab, banner, bannerText, gaugeRest string
}

func coloursOf(theme string) colours {
	switch theme {
	case "light":
		return colours{text: "#24292f", dim: "#6a737d", good: "#1a7f37", warn: "#9a6700", bad: "#cf222e", info: "#0550ae", accent: "#6639ba",
			border: "#afb8c1", selected: "#ddf4ff", tabText: "#ffffff", tab: "#6639ba", banner: "#9a6700", bannerText: "#ffffff", gaugeRest: "#d0d7de"}
	case "colour-blind": // blue and orange, which every eye tells apart
		return colours{text: "#d6dbe1", dim: "#8b949e", good: "#58a6ff", warn: "#e3c04b", bad: "#f0883e", info: "#a5d6ff", accent: "#c9d1d9",
			border: "#484f58", selected: "#2a3340", tabText: "#0d1117", tab: "#c9d1d9", banner: "#f0883e", bannerText: "#0d1117", gaugeRest: "#30363d"}
	}
	return colours{text: "#d5dae3", dim: "#7f8796", good: "#7ecb8f", warn: "#e5c07b", bad: "#f07178", info: "#7aa2f7", accent: "#b79cf2",
		border: "#454c5c", selected: "#2b3245", tabText: "#11131a", tab: "#b79cf2", banner: "#e5c07b", bannerText: "#11131a", gaugeRest: "#363c4a"}
}

// NewLook makes the look of a theme, in what colours the terminal can show.
func NewLook(theme string, profile termenv.Profile, ascii bool) *Look {
	l := &Look{Theme: theme, Glyphs: unicodeGlyphs()}
	if ascii {
		l.Glyphs = asciiGlyphs()
	}
	if theme == "mono" || profile == termenv.Ascii {
		l.Theme = "mono"
		l.mono()
		return l
	}
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(profile)
	c := coloursOf(theme)
	fg := func(colour string) lipgloss.Style { return r.NewStyle().Foreground(lipgloss.Color(colour)) }
	ground := func(text, back string) Style {
		return styleOf(fg(text).Background(lipgloss.Color(back)))
	}
	l.Text, l.Dim, l.Strong = styleOf(fg(c.text)), styleOf(fg(c.dim)), styleOf(fg(c.text).Bold(true))
	l.Good, l.Warn, l.Bad, l.Info = styleOf(fg(c.good)), styleOf(fg(c.warn)), styleOf(fg(c.bad)), styleOf(fg(c.info))
	l.Accent, l.Title, l.Border = styleOf(fg(c.accent)), styleOf(fg(c.text).Bold(true)), styleOf(fg(c.border))
	l.Focus = styleOf(fg(c.accent).Bold(true))
	l.Selected = styleOf(r.NewStyle().Background(lipgloss.Color(c.selected)))
	l.Tab = styleOf(fg(c.tabText).Background(lipgloss.Color(c.tab)).Bold(true))
	l.Banner, l.Toast, l.Danger = ground(c.bannerText, c.banner), ground(c.text, c.selected), ground(c.tabText, c.bad)
	l.Key = styleOf(fg(c.accent).Bold(true))
	l.GaugeRest, l.Wave = styleOf(fg(c.gaugeRest)), styleOf(fg(c.info))
	if profile == termenv.ANSI { // none of the sixteen colours is a quiet ground
		l.Selected, l.Whole, l.Toast = reverse, true, bold
	}
	return l
}

// What a terminal without colours can show.
const bold, faint, reverse = "1", "2", "7"

// mono tells everything by weight and by reversal.
func (l *Look) mono() {
	l.Dim, l.Border, l.GaugeRest = faint, faint, faint
	l.Strong, l.Title, l.Focus, l.Key, l.Warn, l.Bad = bold, bold, bold, bold, bold, bold
	l.Selected, l.Whole = reverse, true
	l.Tab, l.Banner, l.Danger = reverse, reverse, reverse
	l.Toast = bold
}

// styleOf takes the parameters out of what lipgloss draws.
func styleOf(s lipgloss.Style) Style {
	const mark = "x"
	on, _, _ := strings.Cut(s.Render(mark), mark)
	return Style(strings.TrimSuffix(strings.TrimPrefix(on, "\x1b["), "m"))
}

// Glyphs are the characters that are not letters.
type Glyphs struct {
	Good, Warn, Bad, Gone, Info, Quiet string
	Dot, Pointer, Mark, Up, Down, Same string
	More, Enter, Sep                   string
	Spark                              []string // lowest first
	Full, Rest                         string
	Parts                              []string // of a cell, smallest first; none: whole cells only
	TopLeft, TopRight, Bottom, Right   string   // corners: bottom left, bottom right
	Across, Along                      string   // lines
}

func unicodeGlyphs() Glyphs {
	return Glyphs{
		Good: "✓", Warn: "!", Bad: "×", Gone: "⊘", Info: "•", Quiet: "·",
		Dot: "●", Pointer: "▸", Mark: "◆", Up: "▲", Down: "▼", Same: "=",
		More: "…", Enter: "⏎", Sep: "·",
		Spark: text.Bars(),
		Full:  "█", Rest: "░", Parts: []string{"▏", "▎", "▍", "▌", "▋", "▊", "▉"},
		TopLeft: "┌", TopRight: "┐", Bottom: "└", Right: "┘", Across: "─", Along: "│",
	}
}

func asciiGlyphs() Glyphs {
	return Glyphs{
		Good: "+", Warn: "!", Bad: "x", Gone: "/", Info: "*", Quiet: ".",
		Dot: "*", Pointer: ">", Mark: "#", Up: "^", Down: "v", Same: "=",
		More: "~", Enter: "enter", Sep: "-",
		Spark: []string{"_", ".", "-", "=", "+", "*", "%", "#"},
		Full:  "#", Rest: ".",
		TopLeft: "+", TopRight: "+", Bottom: "+", Right: "+", Across: "-", Along: "|",
	}
}
