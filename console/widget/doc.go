// Package widget draws the parts of the console: boxes, tables, gauges, bars,
// sparklines. Each is a pure function of data, a width and a [Look], so that
// every screen can be held to a golden file, and drawn at any size.
//
// Widths are cells of the terminal and never bytes. What comes from outside (a
// certificate's name, a reason) passes package text before it is drawn: a
// name must not move the cursor.
package widget
