package service

import (
	"testing"

	"cyphers.ai/tlsmcp/ipc/peercred"
)

func TestWhoIsWhoOnTheSocket(t *testing.T) {
	l := Local{Own: 900, Operators: []uint32{50}, Viewers: []uint32{60}, Nodes: []uint32{901}}
	for rule, test := range map[string]struct {
		cred     peercred.Cred
		role     Role
		mayEnrol bool
	}{
		"root is admin":                              {peercred.Cred{UID: 0}, Admin, true},
		"the Hub's own user is admin":                {peercred.Cred{UID: 900, GID: 900}, Admin, true},
		"a member of an operators' group":            {peercred.Cred{UID: 1000, GID: 1000, Groups: []uint32{50}}, Operator, false},
		"a member of a viewers' group":               {peercred.Cred{UID: 1001, GID: 60}, Viewer, false},
		"anybody else has no role":                   {peercred.Cred{UID: 1002, GID: 1002}, Nobody, false},
		"a sidecar has none by its own group":        {peercred.Cred{UID: 901, GID: 50}, Nobody, true},
		"nor by one that its user was added to":      {peercred.Cred{UID: 901, GID: 901, Groups: []uint32{50, 60}}, Nobody, true},
		"a sidecar that runs as the Hub is the Hub":  {peercred.Cred{UID: 900}, Admin, true},
		"root stays admin where it may be a sidecar": {peercred.Cred{UID: 0, Groups: []uint32{60}}, Admin, true},
	} {
		a := localActor(test.cred, l)
		if a.Role != test.role || a.mayEnrol != test.mayEnrol {
			t.Errorf("%s: role %v, may enrol %v; want %v, %v", rule, a.Role, a.mayEnrol, test.role, test.mayEnrol)
		}
	}
}
