package scanfmt

import (
	"strings"

	"cyphers.ai/tlsmcp/pkg/scan"
)

// The part of SARIF 2.1.0 that a scan needs. The names are the standard's.
type (
	sarif struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string          `json:"id"`
		ShortDescription sarifText       `json:"shortDescription"`
		Help             sarifText       `json:"help"`
		Properties       sarifProperties `json:"properties"`
	}
	sarifProperties struct {
		Tags []string `json:"tags,omitempty"`
		// Severity is a number that code hosts sort by, 0 to 10.
		Severity string `json:"security-severity,omitempty"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool                `json:"executionSuccessful"`
		Notifications       []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID              string            `json:"ruleId"`
		RuleIndex           int               `json:"ruleIndex"`
		Level               string            `json:"level"`
		Message             sarifText         `json:"message"`
		Locations           []sarifLocation   `json:"locations"`
		PartialFingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		PhysicalLocation sarifPhysical  `json:"physicalLocation"`
		LogicalLocations []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
)

func newSARIF(run *Run) sarif {
	r := sarifRun{
		Tool: sarifTool{sarifDriver{Name: run.Tool.Name, Version: run.Tool.Version,
			InformationURI: "https://cyphers.ai/tlsmcp", Rules: []sarifRule{}}},
		Invocations: []sarifInvocation{{ExecutionSuccessful: true}},
		Results:     []sarifResult{},
	}
	index := map[string]int{}
	for _, rep := range run.Reports {
		for _, problem := range rep.Problems {
			r.Invocations[0].ExecutionSuccessful = false
			r.Invocations[0].Notifications = append(r.Invocations[0].Notifications,
				sarifNotification{"error", sarifText{rep.Target + ": " + problem.Message}})
		}
		for _, c := range rep.Findings() {
			at, ok := index[c.ID]
			if !ok {
				at = len(r.Tool.Driver.Rules)
				index[c.ID] = at
				r.Tool.Driver.Rules = append(r.Tool.Driver.Rules, newSARIFRule(c))
			}
			r.Results = append(r.Results, sarifResult{
				RuleID: c.ID, RuleIndex: at, Level: sarifLevel(c.Severity),
				Message:             sarifText{c.Title + ": " + strings.Join(c.Evidence, "; ")},
				Locations:           []sarifLocation{{sarifPhysical{sarifArtifact{sarifURI(rep.Target)}}, []sarifLogical{{rep.Target, "resource"}}}},
				PartialFingerprints: map[string]string{"target/rule": rep.Target + "/" + c.ID},
			})
		}
	}
	return sarif{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{r}}
}

func newSARIFRule(c scan.Check) sarifRule {
	help := c.Fix
	if len(c.Refs) > 0 {
		help += " See " + strings.Join(c.Refs, "; ") + "."
	}
	return sarifRule{ID: c.ID, ShortDescription: sarifText{c.Title}, Help: sarifText{strings.TrimSpace(help)},
		Properties: sarifProperties{Tags: []string{"security", "tls"}, Severity: sarifNumber(c.Severity)}}
}

func sarifURI(target string) string {
	if strings.Contains(target, "://") {
		return target
	}
	return "tls://" + target
}

func sarifLevel(s scan.Severity) string {
	switch s {
	case scan.Critical, scan.High:
		return "error"
	case scan.Medium:
		return "warning"
	}
	return "note"
}

func sarifNumber(s scan.Severity) string {
	switch s {
	case scan.Critical:
		return "9.5"
	case scan.High:
		return "8.0"
	case scan.Medium:
		return "5.5"
	}
	return "2.0"
}
