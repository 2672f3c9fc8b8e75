package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newAgents is `tlsmcp agents`.
func newAgents(s stdio) *cobra.Command {
	d := new(daemonConn)
	cmd := &cobra.Command{Use: "agents", Short: "List who calls the MCP server behind the sidecar", Args: atMost(0),
		Long: `agents lists the agents that called the MCP server since the sidecar started, by
the identity in their certificates: how often, with what outcome, and what last.
tlsmcp watch --mcp shows calls as they happen, tlsmcp audit tail --kind mcp those
of before.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := ask(cmd.Context(), d, (*controlclient.Client).ListAgents, &controlv1.ListAgentsRequest{})
			if err != nil {
				return err
			}
			return d.print(s, all, func() error {
				rows := [][]string{{"AGENT", "CALLS", "REFUSED", "FAILED", "SESSIONS", "CONNS", "LAST", "WHAT"}}
				for _, a := range all.GetAgents() {
					rows = append(rows, []string{orAnonymous(a.GetIdentity()), fmt.Sprint(a.GetCalls()), fmt.Sprint(a.GetRefused()), fmt.Sprint(a.GetFailed()),
						fmt.Sprint(a.GetSessions()), fmt.Sprint(a.GetConnections()), when(a.GetLastSeen()), strings.TrimSpace(a.GetLastMethod() + " " + a.GetLastTool())})
				}
				return table(s, rows)
			})
		}}
	d.flags(cmd)
	return cmd
}

// newMCP is `tlsmcp mcp`.
func newMCP(s stdio) *cobra.Command {
	v := &mcpServe{s: s}
	cmd := &cobra.Command{Use: "mcp", Short: "Serve AI clients, and look after the MCP server behind the sidecar", Long: mcpHelp}
	cmd.AddCommand(newMCPServe(s), newMCPConnect(s), newMCPInstall(s), newMCPUninstall(s), newMCPWrap(s), newMCPTools(s), newMCPApprove(s))
	group(cmd)
	v.flags(cmd)
	unknown := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(cmd, args)
		}
		return v.run(cmd)
	}
	return cmd
}

const mcpHelp = `mcp without more is tlsmcp mcp serve: an MCP server that works this sidecar. The
other commands look after the MCP server of your own that is behind the sidecar.`

func newMCPTools(s stdio) *cobra.Command {
	d := new(daemonConn)
	var show string
	cmd := &cobra.Command{Use: "tools", Short: "List the tools as they are pinned, or show a changed definition", Args: atMost(0),
		Long: `tools lists each tool that agents were shown, with the digest of the definition
that it is held to. A definition that changed waits for tlsmcp mcp approve; --show
prints it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := ask(cmd.Context(), d, (*controlclient.Client).ListTools, &controlv1.ListToolsRequest{})
			if err != nil {
				return err
			}
			if show != "" {
				return showDefinition(s, all, show)
			}
			return d.print(s, all, func() error {
				rows := [][]string{{"TOOL", "STATE", "APPROVED", "DIGEST", "CHANGED", "NEW DIGEST"}}
				for _, t := range all.GetTools() {
					row := []string{t.GetName(), t.GetState(), when(t.GetApprovedAt()), short(t.GetDigest()), when(t.GetChangedAt()), ""}
					if t.GetState() == "changed" {
						row[5] = short(t.GetOffered())
					}
					rows = append(rows, row)
				}
				return table(s, rows)
			})
		}}
	d.flags(cmd)
	cmd.Flags().StringVar(&show, "show", "", "print the new definition of this `TOOL`")
	return cmd
}

func short(digest string) string { return digest[:min(len(digest), 16)] }

func showDefinition(s stdio, all *controlv1.ListToolsResponse, name string) error {
	for _, t := range all.GetTools() {
		if t.GetName() != name {
			continue
		}
		if t.GetDefinition() == "" {
			return &failure{exitRefused, fmt.Errorf("the definition of %q has not changed", name), "tlsmcp mcp tools lists those that have"}
		}
		var v any
		if err := json.Unmarshal([]byte(t.GetDefinition()), &v); err != nil {
			return err
		}
		out, err := json.MarshalIndent(v, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(s.out, "%s\n", out)
		}
		return err
	}
	return &failure{exitRefused, fmt.Errorf("no tool is called %q", name), "tlsmcp mcp tools lists them"}
}

func newMCPApprove(s stdio) *cobra.Command {
	d := new(daemonConn)
	r := &controlv1.ApproveToolsRequest{}
	cmd := &cobra.Command{Use: "approve [TOOL]", Short: "Hold tools to their new definitions", Args: atMost(1),
		Long: `approve takes the changed definition of a tool, or of all with --all, as the one to
hold it to from now on. Read it first: tlsmcp mcp tools --show TOOL. With --digest
it is approved only if it is still the one that was read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Names = args
			if r.GetAll() == (len(args) == 1) {
				return usageError(cmd, "name a tool, or say --all")
			}
			done, err := ask(cmd.Context(), d, (*controlclient.Client).ApproveTools, r)
			if err != nil {
				return err
			}
			return d.print(s, done, func() error {
				for _, t := range done.GetTools() {
					fmt.Fprintf(s.out, "%s is held to %s\n", text.Clean(t.GetName()), short(t.GetDigest()))
				}
				return nil
			})
		}}
	d.flags(cmd)
	cmd.Flags().BoolVar(&r.All, "all", false, "every tool that has changed")
	cmd.Flags().StringVar(&r.Digest, "digest", "", "the whole `DIGEST` of the definition that was read")
	return cmd
}
