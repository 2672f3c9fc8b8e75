package audit

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// ocsfSchema is a part of the schema of OCSF, as it is published: events and
// objects that extend others, and a dictionary of what attributes are.
type ocsfSchema struct {
	Version    string
	Types      map[string]ocsfType
	Dictionary map[string]ocsfAttribute
	Categories map[string]int
	Profiles   map[string]map[string]string
	Events     map[string]ocsfDefinition
	Objects    map[string]ocsfDefinition
}

type ocsfType struct {
	MaxLen int `json:"max_len"`
	Regex  string
	Range  []float64
}

type ocsfAttribute struct {
	Type        string
	Array       bool
	Enum        []string
	Sibling     string // the text that goes with 99, "Other"
	Requirement string
}

type ocsfDefinition struct {
	Extends    string
	UID        int
	Category   string
	Profiles   []string
	Attributes map[string]ocsfAttribute
	AtLeastOne []string `json:"at_least_one"`
}

// resolve joins a definition with what it extends.
func resolve(from map[string]ocsfDefinition, name string) ocsfDefinition {
	d := from[name]
	if d.Extends == "" {
		return d
	}
	base := resolve(from, d.Extends)
	all := maps.Clone(base.Attributes)
	for k, a := range d.Attributes {
		if a.Requirement == "" {
			a.Requirement = all[k].Requirement
		}
		all[k] = a
	}
	d.Attributes = all
	if d.Category == "" {
		d.Category = base.Category
	}
	if d.AtLeastOne == nil {
		d.AtLeastOne = base.AtLeastOne
	}
	d.Profiles = append(slices.Clone(d.Profiles), base.Profiles...)
	return d
}

// check holds an object to its definition and returns what is wrong.
func (s *ocsfSchema) check(path string, d ocsfDefinition, o map[string]any) (faults []string) {
	for k, a := range d.Attributes {
		if a.Requirement == "required" && o[k] == nil {
			faults = append(faults, fmt.Sprintf("%s.%s is required", path, k))
		}
	}
	if len(d.AtLeastOne) > 0 && !slices.ContainsFunc(d.AtLeastOne, func(k string) bool { return o[k] != nil }) {
		faults = append(faults, fmt.Sprintf("%s has none of %v", path, d.AtLeastOne))
	}
	for k, v := range o {
		a, known := d.Attributes[k]
		entry, listed := s.Dictionary[k]
		if !known || !listed {
			faults = append(faults, fmt.Sprintf("%s.%s is no attribute", path, k))
			continue
		}
		if a.Type != "" {
			entry.Type = a.Type
		}
		entry.Enum = append(slices.Clone(entry.Enum), a.Enum...)
		values, array := v.([]any)
		if array != entry.Array {
			faults = append(faults, fmt.Sprintf("%s.%s: an array %v", path, k, array))
		}
		if !array {
			values = []any{v}
		}
		for _, v := range values {
			faults = append(faults, s.value(path+"."+k, entry, v)...)
		}
		if n, ok := v.(float64); ok && n == 99 && entry.Sibling != "" && o[entry.Sibling] == nil {
			faults = append(faults, fmt.Sprintf("%s.%s is Other, and %s does not say which", path, k, entry.Sibling))
		}
	}
	return faults
}

func (s *ocsfSchema) value(path string, a ocsfAttribute, v any) []string {
	wrong := []string{fmt.Sprintf("%s: %.100v is no %s", path, v, a.Type)}
	if _, ok := s.Objects[a.Type]; ok && a.Type != "object" {
		o, isObject := v.(map[string]any)
		if !isObject {
			return wrong
		}
		return s.check(path, resolve(s.Objects, a.Type), o)
	}
	text, isText := v.(string)
	number, isNumber := v.(float64)
	whole := isNumber && number == math.Trunc(number)
	ty := s.Types[a.Type]
	fine := isText && text != "" && len(text) <= ty.MaxLen
	switch a.Type {
	case "integer_t", "long_t", "port_t":
		fine = whole
	case "timestamp_t":
		fine = whole && number > 1e12 && number < 1e13 // milliseconds
	case "object":
		_, fine = v.(map[string]any)
	case "ip_t":
		_, err := netip.ParseAddr(text)
		fine = fine && err == nil
	}
	switch {
	case ty.Regex != "" && !regexp.MustCompile(ty.Regex).MatchString(text),
		ty.Range != nil && (number < ty.Range[0] || number > ty.Range[1]),
		len(a.Enum) > 0 && !slices.Contains(a.Enum, strconv.Itoa(int(number))):
		fine = false
	}
	if fine {
		return nil
	}
	return wrong
}

// class finds an event's class, and adds the attributes of the profiles that it
// names.
func (s *ocsfSchema) class(doc map[string]any) (d ocsfDefinition, err error) {
	uid, _ := doc["class_uid"].(float64)
	for name := range s.Events {
		d = resolve(s.Events, name)
		if d.UID == 0 || s.Categories[d.Category]*1000+d.UID != int(uid) {
			continue
		}
		metadata, _ := doc["metadata"].(map[string]any)
		profiles, _ := metadata["profiles"].([]any)
		for _, p := range profiles {
			if !slices.Contains(d.Profiles, p.(string)) {
				return d, fmt.Errorf("the class has no profile %v", p)
			}
			for k, requirement := range s.Profiles[p.(string)] {
				if _, own := d.Attributes[k]; !own {
					d.Attributes[k] = ocsfAttribute{Requirement: requirement}
				}
			}
		}
		return d, nil
	}
	return d, fmt.Errorf("there is no class %v", uid)
}

// TestOCSF holds entries to the schema: which attributes a class and an object
// have and require, their types and enumerations, and what profiles add.
func TestOCSF(t *testing.T) {
	var schema ocsfSchema
	published(t, "ocsf-1.3.json", &schema)
	for _, r := range formatCases() {
		t.Run(r.name, func(t *testing.T) {
			doc := parsed(t, formatted(t, "ocsf", r.Record))
			d, err := schema.class(doc)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range schema.check("", d, doc) {
				t.Error(fault)
			}
			number := func(key string) int { v, _ := doc[key].(float64); return int(v) }
			if number("category_uid") != schema.Categories[d.Category] || number("type_uid") != number("class_uid")*100+number("activity_id") {
				t.Errorf("category %v, type %v", doc["category_uid"], doc["type_uid"])
			}
			if v := doc["metadata"].(map[string]any)["version"]; v != schema.Version {
				t.Errorf("it says that it is of version %v", v)
			}
		})
	}
}

// TestOCSFFindsFaults holds the check itself to its rules.
func TestOCSFFindsFaults(t *testing.T) {
	var schema ocsfSchema
	published(t, "ocsf-1.3.json", &schema)
	for rule, spoil := range map[string]func(map[string]any){
		"what is required is there":      func(o map[string]any) { delete(o, "dst_endpoint") },
		"attributes are of the class":    func(o map[string]any) { o["app"] = map[string]any{"vendor_name": "x", "name": "y"} },
		"a profile is named":             func(o map[string]any) { delete(o["metadata"].(map[string]any), "profiles") },
		"numbers are numbers":            func(o map[string]any) { o["status_id"] = "1" },
		"enumerations are closed":        func(o map[string]any) { o["status_id"] = 3.0 },
		"an endpoint has something":      func(o map[string]any) { o["dst_endpoint"] = map[string]any{"port": 1.0} },
		"host names are host names":      func(o map[string]any) { o["dst_endpoint"].(map[string]any)["hostname"] = "a/b" },
		"Other says which":               func(o map[string]any) { o["severity_id"] = 99.0 },
		"what is within is looked at":    func(o map[string]any) { delete(o["tls"].(map[string]any), "version") },
		"a text is not longer than that": func(o map[string]any) { o["message"] = string(make([]byte, 65536)) },
	} {
		doc := parsed(t, formatted(t, "ocsf", samples()[0]))
		spoil(doc)
		d, err := schema.class(doc)
		if err != nil || len(schema.check("", d, doc)) == 0 {
			t.Errorf("%s: not found (%v)", rule, err)
		}
	}
}

// TestOCSFCountsFromTheSource: what came from the client went out of the source.
func TestOCSFCountsFromTheSource(t *testing.T) {
	traffic := parsed(t, formatted(t, "ocsf", Record{Kind: Closed, Remote: "192.0.2.1:1", BytesIn: 10, BytesOut: 20}))["traffic"].(map[string]any)
	if traffic["bytes_out"] != 10.0 || traffic["bytes_in"] != 20.0 {
		t.Errorf("traffic %v", traffic)
	}
}
