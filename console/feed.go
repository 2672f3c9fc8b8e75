package console

import (
	"sort"
	"strings"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
)

// item is an event with a number of the console's own, which goes on counting
// when the daemon begins anew.
type item struct {
	n uint64
	*controlv1.Event
}

// feed keeps the last events, and those of them that pass the filter.
type feed struct {
	all    []item // the oldest first; the last held ones count
	shown  []item
	n      uint64
	filter filter
	paused bool
	missed uint64 // dropped, since the console began
	behind uint64 // came while paused
}

// tail is the last held items of a list that may be longer.
func tail(all []item) []item { return all[max(0, len(all)-held):] }

// trim gives up what is too old, seldom enough to cost nothing.
func trim(all []item) []item {
	if len(all) < 2*held {
		return all
	}
	return append(make([]item, 0, 2*held), tail(all)...)
}

func (f *feed) add(events []*controlv1.Event) {
	for _, e := range events {
		f.n++
		it := item{f.n, e}
		f.all = append(f.all, it)
		if f.paused {
			f.behind++
		} else if f.filter.fits(e) {
			f.shown = append(f.shown, it)
		}
	}
	f.all = trim(f.all)
	if !f.paused {
		f.shown = trim(f.shown)
	}
}

// pause holds the list still, or lets it go on with all that came.
func (f *feed) pause(on bool) {
	f.paused, f.behind = on, 0
	if !on {
		f.refilter(f.filter)
	}
}

func (f *feed) refilter(by filter) {
	f.filter = by
	f.shown = make([]item, 0, len(f.shown))
	for _, it := range tail(f.all) {
		if by.fits(it.Event) {
			f.shown = append(f.shown, it)
		}
	}
}

// list is what is shown, the oldest first.
func (f *feed) list() []item { return tail(f.shown) }

// find is where an item is in the list, or where it would be.
func (f *feed) find(n uint64) int {
	list := f.list()
	return sort.Search(len(list), func(i int) bool { return list[i].n >= n })
}

// filter is what is typed after /. Words must all be found, in whatever case;
// ! before them turns it, -f finds letters that follow each other with gaps.
type filter struct {
	text    string
	words   []string
	inverse bool
	fuzzy   bool
}

func parseFilter(text string) filter {
	f := filter{text: text}
	rest := strings.TrimSpace(text)
	if after, ok := strings.CutPrefix(rest, "!"); ok {
		f.inverse, rest = true, after
	} else if after, ok := strings.CutPrefix(rest, "-f "); ok {
		f.fuzzy, rest = true, after
	}
	f.words = strings.Fields(strings.ToLower(rest))
	return f
}

// pass tells whether a row with these texts is shown.
func (f *filter) pass(texts ...string) bool {
	if len(f.words) == 0 {
		return true
	}
	for _, w := range f.words {
		if !f.found(w, texts) {
			return f.inverse
		}
	}
	return !f.inverse
}

func (f *filter) found(word string, texts []string) bool {
	for _, t := range texts {
		if f.fuzzy && fuzzy(t, word) || !f.fuzzy && containsFold(t, word) {
			return true
		}
	}
	return false
}

func (f *filter) fits(e *controlv1.Event) bool {
	return len(f.words) == 0 || f.pass(e.GetKind(), e.GetIdentity(), e.GetRemote(), e.GetOutcome(), e.GetDetail(),
		e.GetSerial(), e.GetActor(), e.GetMethod(), e.GetTarget(), e.GetTlsGroup())
}

// containsFold is strings.Contains for any case of ASCII; sub is lower case.
func containsFold(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		j := 0
		for j < len(sub) && lower(s[i+j]) == sub[j] {
			j++
		}
		if j == len(sub) {
			return true
		}
	}
	return len(sub) == 0
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// fuzzy tells whether the letters of word are in s in this order.
func fuzzy(s, word string) bool {
	i := 0
	for j := 0; j < len(s) && i < len(word); j++ {
		if lower(s[j]) == word[i] {
			i++
		}
	}
	return i == len(word)
}
