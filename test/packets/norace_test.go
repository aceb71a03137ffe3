//go:build !race

package packets

const slower = 1
