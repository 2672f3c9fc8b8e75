// Package quiet keeps the terminal out of it until there is a console.
//
// Bubble Tea v1 asks the terminal for the colour of its background when it is
// imported, before main runs. That would have every other command of tlsmcp
// write to the terminal, wait for it, and take what somebody types meanwhile.
// Lip Gloss does not ask when it was told the answer before; so it is told, and
// the console asks by itself once it runs.
//
// Packages are initialized in the order of their paths as soon as what they
// import is (Go specification, "Package initialization"). This one imports Lip
// Gloss alone and its path comes before that of Bubble Tea, so it is always
// earlier. test/console runs the program on a terminal and holds it to that.
package quiet

import "github.com/charmbracelet/lipgloss"

var _ = tell()

func tell() bool {
	lipgloss.SetHasDarkBackground(true)
	return true
}
