// Package lab opens labs, runs scenarios on them and closes them: it is where the other packages come
// together. A lab is a set of clusters with a mesh, known by its name and kept in a folder under Home.
//
// Up makes a lab or finds it as it is, Open finds it, Run runs one scenario on it, Down removes it with
// everything that was made for it. The verbs of scenario files stand in one table, Vocabulary; providers
// of clusters are chosen in one switch, newProvider. A program that uses this package calls Supervise
// first thing in main or TestMain, because embedded nodes are this program started again.
package lab
