package words

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLists(t *testing.T) {
	assert.Empty(t, And(nil))
	assert.Equal(t, "a", And([]string{"a"}))
	assert.Equal(t, "a and b", And([]string{"a", "b"}))
	assert.Equal(t, "a, b and c", And([]string{"a", "b", "c"}))
	assert.Equal(t, "a, b or c", Or([]string{"a", "b", "c"}))
	assert.Equal(t, "a, b and 2 more", Some([]string{"a", "b", "c", "d"}, 2))
	assert.Equal(t, "a and b", Some([]string{"a", "b"}, 2))
	assert.Equal(t, []string{"b", "a"}, Unique([]string{"b", "a", "b"}))
}

func TestPercentNeverRoundsALossAway(t *testing.T) {
	for share, want := range map[float64]string{
		0: "0 %", 100: "100 %", 1.0 / 1200 * 100: "0.1 %", 99.99: "99.9 %", 50: "50.0 %", 33.333: "33.3 %",
	} {
		assert.Equal(t, want, Percent(share))
	}
}

func TestTexts(t *testing.T) {
	assert.Equal(t, "1 call", Plural(1, "call"))
	assert.Equal(t, "0 calls", Plural(0, "call"))
	assert.Equal(t, "a", FirstLine("a\nb"))
	assert.Equal(t, "a b", Short(" a\n b ", 9))
	assert.Equal(t, "abc...", Short("abcdefghi", 6))
	assert.Equal(t, "é...", Short("éééééé", 6), "no half of a character")
	assert.Equal(t, "3.2 s", Seconds(3210*time.Millisecond))
	assert.Equal(t, "1m41s", Seconds(101*time.Second))
	for text, d := range map[string]time.Duration{
		"10m": 10 * time.Minute, "1h": time.Hour, "1h30m": 90 * time.Minute, "1m30s": 90 * time.Second, "10m10s": 610 * time.Second,
		"0s": 0, "10s": 10 * time.Second, "100ms": 100 * time.Millisecond, "20h": 20 * time.Hour,
	} {
		assert.Equal(t, text, Duration(d))
	}
	assert.Equal(t, "90 s", Age(-90*time.Second))
	assert.Equal(t, "5 min", Age(5*time.Minute))
	assert.Equal(t, "47 h", Age(47*time.Hour))
	assert.Equal(t, "3 days", Age(80*time.Hour))
	assert.Equal(t, "| a | b\\|c d |\n", Row("a", "b|c\nd"))
}

func TestNear(t *testing.T) {
	names := []string{"create-cacerts", "delete-cacerts", "call", "calls"}
	assert.Equal(t, "create-cacerts", Near("iate-cacerts", names), "the beginning need not be right")
	assert.Equal(t, "create-cacerts", Near("craete-cacerts", names))
	assert.Empty(t, Near("sever", names))
}
