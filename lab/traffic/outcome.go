package traffic

// Outcome is what became of a call, as the judges count it.
type Outcome string

// The outcomes. Lost and Elsewhere are what Stats.Lost counts.
const (
	Answered  Outcome = "answered"
	Elsewhere Outcome = "answered elsewhere" // by a cluster that is not the expected one
	Lost      Outcome = "lost"
	NotIssued Outcome = "not issued"
	UnderWay  Outcome = "under way"
)

// Outcome returns what became of a call of the window, and why, if it was not answered as expected.
func (w Window) Outcome(c Call) (o Outcome, why string) {
	switch {
	case !c.Issued:
		return NotIssued, c.Err
	case c.End.IsZero():
		return UnderWay, ""
	case w.succeeded(c):
		return Answered, ""
	case c.Code == 200:
		return Elsewhere, w.lossOf(c)
	}
	return Lost, w.lossOf(c)
}
