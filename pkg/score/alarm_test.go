package score

import (
	"strings"
	"testing"
)

func TestAnAlarmIsNewOnceAndLastsAsLongAsItsRow(t *testing.T) {
	good := Score(world{}.facts(), V1(), noon)
	if a := good.Alarms(); len(a) != 0 {
		t.Errorf("the best facts raise %+v", a)
	}
	for _, tt := range []struct {
		rule  string
		world world
		want  string // code; empty: none
	}{
		{"a certificate that clients refuse", world{"C1": 1}, AlarmInvalid},
		{"a certificate near its end", world{"C2": 2}, AlarmExpiry},
		{"a certificate with a fifth of its life", world{"C2": 1}, ""},
		{"revocation that is over an hour old", world{"R1": 1}, AlarmRevocation},
		{"no source of revocation at all is no news", world{"R1": 3}, ""},
		{"a revoked certificate that came in", world{"R2": 3}, AlarmAccepted},
		{"one that was refused late", world{"R2": 2}, ""},
		{"a chain that does not verify", world{"O1": 4}, AlarmAudit},
		{"a chain without a copy", world{"O1": 2}, ""},
		{"a key that all can read", world{"K1": 3}, AlarmKey},
		{"a key that a group can read", world{"K1": 2}, ""},
	} {
		bad := Score(tt.world.facts(), V1(), noon)
		fresh := NewAlarms(good, bad)
		switch {
		case tt.want == "" && len(fresh) != 0:
			t.Errorf("%s: %+v", tt.rule, fresh)
		case tt.want != "" && (len(fresh) != 1 || fresh[0].Code != tt.want || !strings.Contains(fresh[0].Detail, ": ")):
			t.Errorf("%s: %+v, not %s", tt.rule, fresh, tt.want)
		}
		if again := NewAlarms(bad, bad); len(again) != 0 {
			t.Errorf("%s: it is new again: %+v", tt.rule, again)
		}
		if first := NewAlarms(nil, bad); len(first) != len(fresh) {
			t.Errorf("%s: of a first report: %+v", tt.rule, first)
		}
	}
}

func TestTheReasonOfADifferenceNamesTheRowsThatWeighMostFirst(t *testing.T) {
	from := Score(world{}.facts(), V1(), noon)
	to := Score(world{"M1": 2, "P4": 1}.facts(), V1(), noon)
	d, err := Diff(from, to, V1())
	if err != nil {
		t.Fatal(err)
	}
	want := "M1 pass to fail (b asks for none, a does not insist); P4 pass to fail (early data is accepted)"
	if got := d.Reason(); got != want {
		t.Errorf("%q", got)
	}
}

func TestWhyAFactIsMissingIsToldAndGoesWithTheFact(t *testing.T) {
	f := Facts{SchemaVersion: FactsSchema, Unmeasured: map[string]string{"canary": "there is no Hub", "no_such_fact": "x", "versions": "bad\x1b[2J"}}
	if err := f.Validate(); err == nil {
		t.Error("a reason that moves a cursor is taken")
	}
	delete(f.Unmeasured, "versions")
	r := Score(f, V1(), noon)
	if c, _ := r.Check("R2"); c.Result != Unknown || c.Reason != "Not measured: there is no Hub." {
		t.Errorf("R2 is %+v", c)
	}
	if len(r.Facts.Unmeasured) != 1 {
		t.Errorf("the reasons are %v", r.Facts.Unmeasured)
	}
	known := Facts{SchemaVersion: FactsSchema, Canary: fact(Canary{Refused: true})}
	if m := Merge(f, known); m.Canary == nil || m.Unmeasured["canary"] != "" {
		t.Errorf("merged %+v, %v", m.Canary, m.Unmeasured)
	}
	if m := Merge(Facts{SchemaVersion: FactsSchema}, f); m.Unmeasured["canary"] != "there is no Hub" {
		t.Errorf("merged with nothing %v", m.Unmeasured)
	}
	own := f.From(SourceHub)
	if known.From(SourceHub).Canary != nil || known.From(SourceDaemon).Canary == nil || len(own.Names()) != 0 {
		t.Error("facts are kept from another source")
	}
}
