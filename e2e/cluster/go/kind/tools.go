//go:build tools

// Package tools names kind, used where Docker runs.
package tools

import _ "sigs.k8s.io/kind"
