package main

import (
	"context"
	"fmt"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/inventory"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/version"
)

// exportInventory writes certificates as a CycloneDX document, and has the Hub
// note that it was. Who may only look gets the document all the same.
func exportInventory(ctx context.Context, s stdio, h *hubConn, certs []*hubv1.Certificate) error {
	entries := make([]inventory.Entry, 0, len(certs))
	for _, c := range certs {
		parsed, err := pki.ParseBundle([]byte(c.GetCertificate()))
		if err != nil {
			return fmt.Errorf("certificate %s: %w", c.GetId(), err)
		}
		entries = append(entries, inventory.Entry{Certificate: parsed[0], Service: c.GetServiceId(), Type: c.GetType(), Status: c.GetStatus()})
	}
	doc, err := inventory.CycloneDX(entries, version.Get().Version, time.Now())
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.out, "%s\n", doc); err != nil {
		return err
	}
	r := &hubv1.RecordInventoryRequest{Certificates: uint32(len(certs)), Format: "cyclonedx-1.6"}
	if _, err := call(ctx, h, (*hubclient.Client).RecordInventory, r); err != nil {
		fmt.Fprintf(s.err, "tlsmcp: the export is not noted for the score: %v\n", err)
	}
	return nil
}
