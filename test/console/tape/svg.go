package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

const (
	cellWidth, cellHeight = 8.4, 18.0
	margin                = 14.0
	ground, ink           = "#11131a", "#d5dae3"
)

// run is a piece of a line in one style.
type run struct {
	text       string
	at, cells  int
	fore, back string
	bold, dim  bool
	under      bool
}

// svg lays all frames side by side, as a film, and moves the film behind a window.
// Lines that are the same in several frames are there once.
func svg(frames []frame) string {
	w, h := width*cellWidth+2*margin, height*cellHeight+2*margin
	var defs, film strings.Builder
	known := map[string]int{}
	var total time.Duration
	for i, f := range frames {
		total += f.lasts
		fmt.Fprintf(&film, `<g transform="translate(%.1f)">`, float64(i)*w)
		for y, line := range linesOf(f.picture) {
			if ansi.Strip(line) == "" {
				continue
			}
			drawn := drawLine(line)
			n, ok := known[drawn]
			if !ok {
				n = len(known)
				known[drawn] = n
				fmt.Fprintf(&defs, `<g id="l%d">%s</g>`, n, drawn)
			}
			fmt.Fprintf(&film, `<use href="#l%d" y="%.1f"/>`, n, float64(y)*cellHeight)
		}
		film.WriteString("</g>")
	}
	var steps strings.Builder
	var at time.Duration
	for i, f := range frames {
		fmt.Fprintf(&steps, "%.3f%%{transform:translateX(-%.1fpx)}", float64(at)/float64(total)*100, float64(i)*w)
		at += f.lasts
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.1f %.1f" role="img" aria-label="tlsmcp console: a certificate is revoked and its connections are cut">
<style>text{font:14px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:%s}.b{font-weight:bold}.d{opacity:.6}.u{text-decoration:underline}
#film{animation:film %.1fs steps(1,end) infinite}@keyframes film{%s}</style>
<defs>%s</defs><rect width="100%%" height="100%%" rx="8" fill="%s"/>
<svg x="%.1f" y="%.1f" width="%.1f" height="%.1f"><g id="film">%s</g></svg></svg>
`, w, h, w, h, ink, total.Seconds(), steps.String(), defs.String(), ground, margin, margin, width*cellWidth, height*cellHeight, film.String())
}

func drawLine(line string) string {
	var b strings.Builder
	for _, r := range runs(line) {
		x, wide := float64(r.at)*cellWidth, float64(r.cells)*cellWidth
		if r.back != "" {
			fmt.Fprintf(&b, `<rect x="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, wide, cellHeight, r.back)
		}
		// Spaces at the ends are left out: not every program draws them.
		text := strings.TrimLeft(r.text, " ")
		x += float64(len(r.text)-len(text)) * cellWidth
		if text = strings.TrimRight(text, " "); text == "" {
			continue
		}
		wide = float64(ansi.StringWidth(text)) * cellWidth
		attrs := ""
		for _, c := range []struct {
			on   bool
			name string
		}{{r.bold, "b"}, {r.dim, "d"}, {r.under, "u"}} {
			if c.on {
				attrs += " " + c.name
			}
		}
		if attrs != "" {
			attrs = fmt.Sprintf(` class="%s"`, attrs[1:])
		}
		if r.fore != "" {
			attrs += fmt.Sprintf(` style="fill:%s"`, r.fore)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="13.5" textLength="%.1f" lengthAdjust="spacingAndGlyphs"%s>%s</text>`, x, wide, attrs, strings.ReplaceAll(html.EscapeString(text), " ", "\u00a0"))
	}
	return b.String()
}

// linesOf takes a picture apart. Tmux leaves a style on over the end of a line; here
// each line begins with what is on.
func linesOf(picture string) []string {
	lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
	on := ""
	for i, line := range lines {
		lines[i] = on + line
		for rest := line; ; {
			_, after, found := strings.Cut(rest, "\x1b[")
			if !found {
				break
			}
			params, next, _ := strings.Cut(after, "m")
			if on += "\x1b[" + params + "m"; params == "" || params == "0" {
				on = ""
			}
			rest = next
		}
	}
	return lines
}

// runs takes a line apart by its styles.
func runs(line string) []run {
	var out []run
	var now run
	at := 0
	for line != "" {
		if rest, ok := strings.CutPrefix(line, "\x1b["); ok {
			params, after, _ := strings.Cut(rest, "m")
			now.style(params)
			line = after
			continue
		}
		text, rest := line, ""
		if i := strings.IndexByte(line, '\x1b'); i >= 0 {
			text, rest = line[:i], line[i:]
		}
		r := now
		r.text, r.at, r.cells = text, at, ansi.StringWidth(text)
		at += r.cells
		out = append(out, r)
		line = rest
	}
	return out
}

// style applies the parameters of an SGR sequence, those that tmux writes.
func (r *run) style(params string) {
	p := strings.Split(params, ";")
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case "", "0":
			*r = run{}
		case "1":
			r.bold = true
		case "2":
			r.dim = true
		case "4":
			r.under = true
		case "7":
			r.fore, r.back = ground, ink
		case "22":
			r.bold, r.dim = false, false
		case "39":
			r.fore = ""
		case "49":
			r.back = ""
		case "38", "48":
			if i+4 < len(p) && p[i+1] == "2" {
				if c := colour(p[i+2 : i+5]); p[i] == "38" {
					r.fore = c
				} else {
					r.back = c
				}
				i += 4
			}
		}
	}
}

func colour(rgb []string) string {
	out := "#"
	for _, v := range rgb {
		n, _ := strconv.Atoi(v)
		out += fmt.Sprintf("%02x", n)
	}
	return out
}
