package server

import (
	"encoding/base64"

	"github.com/mark3labs/mcp-go/mcp"
)

// The icons: paths of 24x24 drawings with one stroke.
const (
	iconShield = "M12 3l7 3v5c0 4.5-3 8-7 10-4-2-7-5.500-7-10V6z"
	iconPlus   = iconShield + "M12 8v7M8.500 11.500h7"
	iconCut    = iconShield + "M9 9l6 6M15 9l-6 6"
	iconLook   = "M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l5 5"
	iconList   = "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01"
	iconGauge  = "M4 18a8 8 0 1116 0M12 18l4-6"
	iconPulse  = "M3 12h4l3-7 4 14 3-7h4"
	iconPeople = "M9 11a3.500 3.500 0 100-7 3.500 3.500 0 000 7zM3 20c0-3.500 2.700-6 6-6s6 2.500 6 6M16 4.500a3.500 3.500 0 010 6.500M17 14c2.500.500 4 3 4 6"
)

// icon makes an icon of a drawing, in the data itself: nothing is fetched to show
// it.
func icon(path string) []mcp.Icon {
	const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#0b7285" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"><path d="`
	svg := head + path + `"/></svg>`
	return []mcp.Icon{{Src: "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(svg)), MIMEType: "image/svg+xml", Sizes: []string{"any"}}}
}
