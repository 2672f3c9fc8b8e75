package console

import (
	"context"
	"strings"
	"testing"
)

// TestThePaletteFindsEveryCommandByItsName types each name and presses Enter.
func TestThePaletteFindsEveryCommandByItsName(t *testing.T) {
	w := newWorld()
	m := picture(t, w, 80, 24, "mono").live(w)
	m.Commands = []Command{{Path: "hub token create", Short: "Make a token", Fields: []Field{{Name: "role", Help: "viewer, operator or admin"}}}}
	for _, c := range m.forms() {
		m.pressAll(":")
		for _, r := range c.Path {
			m.pressAll(string(r))
		}
		m.pressAll("enter")
		switch o := m.overlay.(type) {
		case *form:
			if o.title != c.Path {
				t.Errorf("%q opens %q", c.Path, o.title)
			}
		case *confirm:
			if o.order.Verb != c.Path {
				t.Errorf("%q asks for %q", c.Path, o.order.Verb)
			}
		default:
			t.Errorf("%q opens %T; the line says %q", c.Path, o, m.toast.text)
		}
		m.overlay = nil
	}
}

// TestEveryVerbHasAForm: what the console does by itself has a form, and every
// action's verb is one that is done.
func TestEveryVerbHasAForm(t *testing.T) {
	paths := strings.Join(Offers(nil), "\n") + "\n"
	for verb := range doers() {
		if !strings.Contains(paths, verb+"\n") {
			t.Errorf("%q is done and offered nowhere", verb)
		}
	}
	for _, a := range actions() {
		if a.verb != "" && doers()[a.verb] == nil {
			t.Errorf("the action %q wants %q, which nobody does", a.id, a.verb)
		}
	}
}

func TestACommandIsRunWithWhatTheFormHolds(t *testing.T) {
	var got []string
	d := &daemon{commands: []Command{{Path: "hub webhook create", Fields: []Field{{Name: "url", Operand: true, Required: true}, {Name: "topic"}, {Name: "force", Switch: true}}}},
		run: func(_ context.Context, argv []string) (string, error) { got = argv; return "secret\n", nil }}
	out, err := d.Do(t.Context(), Order{"hub webhook create", Args{"url": "https://x", "topic": "alert", "force": "yes"}})
	if err != nil || strings.Join(got, " ") != "hub webhook create --topic=alert --force -- https://x" || len(out.Lines) != 1 || out.Lines[0] != "secret" {
		t.Errorf("it runs %q and gives %+v, %v", got, out, err)
	}
	if _, err := d.Do(t.Context(), Order{"hub webhook create", Args{"force": "no"}}); err == nil || err.Error() != "url is missing" {
		t.Errorf("without its operand: %v", err)
	}
	if _, err := d.Do(t.Context(), Order{"rm", Args{}}); err == nil {
		t.Error("what is no command is run")
	}
}
