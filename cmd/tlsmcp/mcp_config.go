package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
)

// mcpSection is [mcp] of the sidecar's configuration as the daemon shows it, all
// its keys set.
type mcpSection struct {
	Enabled    bool   `toml:"enabled"`
	Transport  string `toml:"transport"`
	SSEAddress string `toml:"sse_address"`
	SelfSecure bool   `toml:"self_secure"`
}

// configured takes from the sidecar's configuration how to serve, where no flag
// says it. A sidecar that is not there, or does not show it to this user, says
// nothing: the server starts all the same.
func (v *mcpServe) configured(cmd *cobra.Command) error {
	c := controlclient.New(controlclient.Options{Socket: v.d.path()})
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
	defer cancel()
	shown, err := c.GetConfig(ctx, &controlv1.GetConfigRequest{})
	if err != nil {
		return nil
	}
	var file struct {
		MCP *mcpSection `toml:"mcp"`
	}
	if _, err := toml.Decode(shown.GetToml(), &file); err != nil || file.MCP == nil {
		return nil // a daemon of another version
	}
	m, path := file.MCP, shown.GetPath()
	if !m.Enabled {
		return &failure{exitRefused, errors.New("mcp.enabled is false in " + path), "set it to true, then tlsmcp reload"}
	}
	for _, flag := range []string{"transport", "listen", "self-secure"} {
		if cmd.Flags().Changed(flag) {
			return nil
		}
	}
	if m.Transport == "stdio" && m.SelfSecure {
		return &failure{exitRefused, fmt.Errorf("%s: mcp.self_secure goes with mcp.transport http or sse", path), "over standard input there is nobody to ask for a certificate"}
	}
	v.transport, v.selfSecure = m.Transport, m.SelfSecure
	if m.Transport != "stdio" && !m.SelfSecure {
		v.listen = m.SSEAddress
	}
	return nil
}
