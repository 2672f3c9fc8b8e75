package score

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cyphers.ai/tlsmcp/pkg/order"
	"cyphers.ai/tlsmcp/pkg/text"
)

// Limits of what is believed about facts that came from somewhere else.
const (
	maxFactsBytes = 1 << 20
	maxText       = 1024
	maxItems      = 1024
	maxCount      = 1 << 53 // what every JSON reader can hold
	// clockSkew is how far ahead another host's clock may be.
	clockSkew = 5 * time.Minute
	// outsideHolds is for how long the view from outside counts more than a
	// newer one from inside. See Merge.
	outsideHolds = 24 * time.Hour
)

// slot is one fact of whatever type.
type slot struct {
	name  string // the JSON key
	field reflect.Value
}

// stamp is when and by whom a fact was measured.
type stamp struct {
	at     time.Time
	source Source
}

// stamped is implemented by every Fact.
type stamped interface {
	stamp() stamp
	value() any
}

func (f *Fact[T]) stamp() stamp { return stamp{f.MeasuredAt, f.Source} }
func (f *Fact[T]) value() any   { return f.Value }

// slots lists the facts of f that are not nil, in the order of their
// declaration.
func (f *Facts) slots() []slot {
	var all []slot
	for _, s := range f.fields() {
		if !s.field.IsNil() {
			all = append(all, s)
		}
	}
	return all
}

func (f *Facts) fields() []slot {
	v := reflect.ValueOf(f).Elem()
	var all []slot
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Pointer {
			continue
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		all = append(all, slot{name, v.Field(i)})
	}
	return all
}

func (s slot) fact() stamped { return s.field.Interface().(stamped) }

// FactNames lists the JSON keys of all facts there can be.
func FactNames() []string {
	var names []string
	for _, s := range new(Facts).fields() {
		names = append(names, s.name)
	}
	return names
}

// Names lists the JSON keys of the facts that are there.
func (f *Facts) Names() []string {
	var names []string
	for _, s := range f.slots() {
		names = append(names, s.name)
	}
	return names
}

// From keeps the facts that a source measured, and leaves the others out.
func (f *Facts) From(source Source) Facts {
	out := *f
	for _, s := range out.slots() {
		if s.fact().stamp().source != source {
			s.field.SetZero()
		}
	}
	return out
}

// Decode reads facts as JSON. It refuses another schema_version, a fact that
// contradicts itself, text that could confuse a terminal, and anything behind
// the end. Facts that this build does not know are left out, so that a newer
// daemon can report to an older Hub.
func Decode(data []byte) (Facts, error) {
	if len(data) > maxFactsBytes {
		return Facts{}, fmt.Errorf("facts: %d bytes, more than %d", len(data), maxFactsBytes)
	}
	var f Facts
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&f); err != nil {
		return Facts{}, fmt.Errorf("facts: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Facts{}, errors.New("facts: something follows the end of the JSON")
	}
	if err := f.Validate(); err != nil {
		return Facts{}, err
	}
	return f.normal(), nil
}

// Validate says what is wrong with facts, all at once.
func (f *Facts) Validate() error {
	var errs []error
	if f.SchemaVersion != FactsSchema {
		errs = append(errs, fmt.Errorf("facts: schema_version is %d, and this build reads %d: bring both sides to one release", f.SchemaVersion, FactsSchema))
	}
	if err := checkText(f.Service); err != nil {
		errs = append(errs, fmt.Errorf("facts: service: %w", err))
	}
	for _, s := range f.slots() {
		if err := s.fault(); err != nil {
			errs = append(errs, fmt.Errorf("facts: %s: %w", s.name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Unmeasured)) {
		if err := errors.Join(checkText(name), checkText(f.Unmeasured[name])); err != nil {
			errs = append(errs, fmt.Errorf("facts: unmeasured: %w", err))
		}
	}
	return errors.Join(errs...)
}

// fault says why a fact cannot be believed whatever the time is.
func (s slot) fault() error {
	st := s.fact().stamp()
	switch {
	case st.at.IsZero():
		return errors.New("measured_at is missing")
	case !slices.Contains([]Source{SourceDaemon, SourceHub, SourceScan}, st.source):
		return fmt.Errorf("source %q is not daemon, hub or scan", st.source)
	}
	if err := checkPlain(s.field.Elem()); err != nil {
		return err
	}
	return checkValue(s.fact().value())
}

// checkPlain looks at every text, number, time and list in a value.
func checkPlain(v reflect.Value) error {
	if v.Type() == reflect.TypeFor[time.Time]() {
		t := v.Interface().(time.Time)
		if !t.IsZero() && (t.Year() < 1950 || t.Year() > 9999) {
			return errors.New("a time is outside the years 1950 to 9999")
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		return checkText(v.String())
	case reflect.Int, reflect.Int64:
		if v.Int() < 0 || v.Int() > maxCount {
			return fmt.Errorf("the number %d is out of range", v.Int())
		}
	case reflect.Slice:
		if v.Len() > maxItems {
			return fmt.Errorf("a list has %d entries, more than %d", v.Len(), maxItems)
		}
		for i := range v.Len() {
			if err := checkPlain(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if err := checkPlain(v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkText refuses what could move a terminal's cursor or hide text.
func checkText(s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("a text has %d bytes, more than %d", len(s), maxText)
	case !utf8.ValidString(s):
		return errors.New("a text is not UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("the text %q has a character that cannot be printed", s)
	}
	return nil
}

// checkValue refuses values that contradict themselves. Only the types with
// something to contradict are here.
func checkValue(v any) error {
	switch v := v.(type) {
	case []Version:
		if len(v) == 0 {
			return errors.New("no version is listed: a server that answered speaks one")
		}
		for _, version := range v {
			if !slices.Contains(versions(), version) {
				return fmt.Errorf("%q is not a version of SSL or TLS", version)
			}
		}
	case []string: // suites, groups
		if len(v) == 0 || slices.Contains(v, "") {
			return errors.New("the list is empty, or has an empty name")
		}
	case Module:
		if v.FIPS && v.Version == "" || v.Validated && !v.FIPS {
			return errors.New("a module in FIPS mode has a version, and only one in FIPS mode is validated")
		}
	case Certificate:
		if !v.NotBefore.Before(v.NotAfter) || v.NotBefore.IsZero() {
			return errors.New("not_after does not follow not_before")
		}
	case []ListenerAuth:
		if len(v) == 0 {
			return errors.New("no listener is listed")
		}
		for _, l := range v {
			if l.Mode != AuthRequired && l.Mode != AuthOptional && l.Mode != AuthNone {
				return fmt.Errorf("mode %q is not required, optional or none", l.Mode)
			}
		}
	case Share:
		if v.With > v.Connections {
			return fmt.Errorf("%d of %s is more than all", v.With, text.Plural(v.Connections, "connection"))
		}
	case KeyStorage:
		if !slices.Contains([]KeyKind{KeyTPM, KeyHSM, KeyMemory, KeyFile}, v.Kind) {
			return fmt.Errorf("kind %q is not tpm, hsm, memory or file", v.Kind)
		}
		if v.Mode > 0o777 {
			return fmt.Errorf("mode %#o has more than permission bits", v.Mode)
		}
	case KeyRotation:
		if v.Since.IsZero() {
			return errors.New("since is missing")
		}
	case Audit:
		if !slices.Contains([]AuditState{AuditVerified, AuditGap, AuditBroken}, v.State) {
			return fmt.Errorf("state %q is not verified, gap or broken", v.State)
		}
	}
	return nil
}

func versions() []Version { return []Version{SSL2, SSL3, TLS10, TLS11, TLS12, TLS13} }

// believed returns f without the facts that cannot be true at a time, and says
// of each that was left out why. What remains is in normal form.
func (f *Facts) believed(now time.Time) (Facts, map[string]string) {
	out, why := *f, map[string]string{}
	for _, s := range out.slots() {
		err := s.fault()
		if at := s.fact().stamp().at; err == nil && at.After(now.Add(clockSkew)) {
			err = fmt.Errorf("measured at %s, which is in the future: compare the clocks", at.UTC().Format(time.RFC3339))
		}
		if err != nil {
			why[s.name] = err.Error()
			s.field.SetZero()
		}
	}
	if checkText(out.Service) != nil {
		out.Service = ""
	}
	return out.normal(), why
}

// normal gives facts with the same meaning in the one form that a digest is
// made of: times in UTC, lists sorted and without doubles. f is not changed.
func (f *Facts) normal() Facts {
	out := *f
	out.SchemaVersion = FactsSchema
	for _, s := range out.slots() {
		p := reflect.New(s.field.Type().Elem())
		p.Elem().Set(normalValue(s.field.Elem()))
		s.field.Set(p)
	}
	out.Unmeasured = nil
	for _, s := range out.fields() {
		if why := f.Unmeasured[s.name]; why != "" && s.field.IsNil() && checkText(why) == nil {
			out.excuse(s.name, why)
		}
	}
	return out
}

// excuse notes why a fact is not there.
func (f *Facts) excuse(name, why string) {
	if f.Unmeasured == nil {
		f.Unmeasured = map[string]string{}
	}
	f.Unmeasured[name] = why
}

func normalValue(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	if t, ok := v.Interface().(time.Time); ok {
		out.Set(reflect.ValueOf(t.UTC().Truncate(time.Second)))
		return out
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(normalValue(v.Field(i)))
		}
	case reflect.Slice:
		items := make([]reflect.Value, 0, v.Len())
		for i := range v.Len() {
			items = append(items, normalValue(v.Index(i)))
		}
		order.By(items, func(a, b reflect.Value) int { return bytes.Compare(asJSON(a.Interface()), asJSON(b.Interface())) })
		items = slices.CompactFunc(items, func(a, b reflect.Value) bool { return bytes.Equal(asJSON(a.Interface()), asJSON(b.Interface())) })
		out.Set(reflect.MakeSlice(v.Type(), 0, len(items)))
		for _, item := range items {
			out.Set(reflect.Append(out, item))
		}
	}
	return out
}

// asJSON is for values of this package's types, which always marshal: their
// times were checked.
func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// Merge makes one set of facts from several of the same service, such as the
// daemon's, the Hub's and a scan's. For each fact the newest counts, with one
// exception: what was seen from further outside (a scan before the Hub before
// the daemon) counts more for a day, so that a daemon that reports each minute
// does not talk over a scan that found otherwise. The order of the arguments
// does not matter.
func Merge(all ...Facts) Facts {
	out := Facts{SchemaVersion: FactsSchema}
	for i, into := range out.fields() {
		var found []reflect.Value
		var newest time.Time
		var why string
		for _, f := range all {
			n := f.normal()
			why = max(why, n.Unmeasured[into.name]) // any will do that is always the same
			if v := n.fields()[i].field; !v.IsNil() {
				found = append(found, v)
				if at := v.Interface().(stamped).stamp().at; at.After(newest) {
					newest = at
				}
			}
		}
		if len(found) == 0 {
			if why != "" {
				out.excuse(into.name, why)
			}
			continue
		}
		into.field.Set(slices.MaxFunc(found, func(a, b reflect.Value) int {
			return compareFacts(a.Interface().(stamped), b.Interface().(stamped), newest)
		}))
	}
	for _, f := range all {
		out.Service = max(out.Service, f.Service)
	}
	return out
}

// compareFacts orders two measurements of the same thing by how much they
// count. newest is the time of the newest of all.
func compareFacts(a, b stamped, newest time.Time) int {
	sa, sb := a.stamp(), b.stamp()
	outside := func(s stamp) int {
		if newest.Sub(s.at) > outsideHolds {
			return -1
		}
		return slices.Index([]Source{SourceDaemon, SourceHub, SourceScan}, s.source)
	}
	if d := outside(sa) - outside(sb); d != 0 {
		return d
	}
	if d := sa.at.Compare(sb.at); d != 0 {
		return d
	}
	return bytes.Compare(asJSON(a), asJSON(b)) // any order will do that is always the same
}
